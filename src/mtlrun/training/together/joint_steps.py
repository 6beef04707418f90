"""The steps of several trainers in one process: at once where that is faster, else one after the other."""

import copy
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from mtlrun.training.batch import LabeledBatch
from mtlrun.training.together.joint_gradients import Turn
from mtlrun.training.together.joint_step import JointStep
from mtlrun.training.together.stacked_models import find_difference
from mtlrun.training.trainer import Trainer

#: What of a trainer's state a step changes.
_CHANGED = ("model", "optimizer", "weighting", "step_means", "progress", "generators")
#: Rounds and steps of each round by which both ways are timed; the first step of a round is not counted.
_ROUNDS, _TIMED_STEPS = 2, 3


class JointSteps:
    """Makes a step of each of several trainers, in the way that was found to be faster before the first one.

    Trainers must be of one config but for the seed; which of them make a step may change from one call to the next.

    Args:
        turn: makes a context for what belongs to one trainer alone, such as its log.
    """

    def __init__(self, turn: Turn = lambda _: nullcontext()) -> None:
        self._turn = turn
        #: True if a step of all is made at once; None before the first.
        self.is_joint: bool | None = None
        #: Why, in words.
        self.reason = ""
        self._step: JointStep | None = None
        self._of: list[Trainer] = []

    def make(self, trainers: Sequence[Trainer], loaded: Sequence[LabeledBatch]) -> list[Exception | None]:
        """Make a step with a batch for each trainer; return the error of each whose step was not applied."""
        if self.is_joint is None and len(trainers) > 1:
            self._choose(trainers, loaded)
        errors = None
        if self.is_joint and len(trainers) > 1 and not any(map(_is_measured, trainers)):
            errors = self._joint_step(trainers).make(loaded)
            self._count(trainers, errors)
        if errors is None:
            self.release()
            errors = []
            for trainer, batch in zip(trainers, loaded, strict=True):
                with self._turn(trainer):
                    errors.append(_step_alone(trainer, batch))
        elif any(errors):
            self.release()
        return errors

    def release(self) -> None:
        """Let the trainers make steps by themselves."""
        if self._step is not None:
            self._step.release()
        self._step, self._of = None, []

    def _joint_step(self, trainers: Sequence[Trainer]) -> JointStep:
        if self._step is None or self._of != list(trainers):
            self.release()
            self._step, self._of = JointStep(trainers, self._turn), list(trainers)
        return self._step

    @staticmethod
    def _count(trainers: Sequence[Trainer], errors: Sequence[Exception | None] | None) -> None:
        for trainer, error in zip(trainers, errors or (), strict=False):
            trainer.progress.joint_steps += error is None

    def _choose(self, trainers: Sequence[Trainer], loaded: Sequence[LabeledBatch]) -> None:
        """Time both ways by steps that are taken back."""
        parts = [trainer.parts for trainer in trainers]
        compared: dict[str, list[object]] = {"model": [each.model for each in parts]}
        compared |= {f"tasks.{name}": [each.tasks[name] for each in parts] for name in parts[0].tasks}
        for what, objects in compared.items():
            difference = find_difference(objects)
            if difference is not None:
                self.is_joint = False
                self.reason = f"{what}.{difference} differs from seed to seed, so steps are made one after the other"
                return
        try:
            times = measure(trainers, loaded)
        except torch.OutOfMemoryError:
            self.is_joint, self.reason = False, "no memory for a step of all at once, so they are made one by one"
            return
        if isinstance(times, str):
            self.is_joint, self.reason = False, f"{times}, so steps are made one after the other"
            return
        joint, separate = times
        self.is_joint = joint < separate
        found = f"{1e3 * joint:.3g} ms at once, {1e3 * separate:.3g} ms one after the other"
        self.reason = f"a step of each takes {found}: {'at once' if self.is_joint else 'one after the other'}"


def measure(trainers: Sequence[Trainer], loaded: Sequence[LabeledBatch]) -> tuple[float, float] | str:
    """Return the seconds of a step of all trainers, made at once and one after the other; nothing is changed.

    Where they cannot be timed, return the reason.
    """
    before, disabled = [_snapshot(trainer) for trainer in trainers], logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what such a step logs did not happen
    device = trainers[0].parts.device
    times: dict[bool, list[float]] = {True: [], False: []}
    try:
        for _ in range(_ROUNDS):
            for joint in (True, False):
                step = JointStep(trainers) if joint else None
                for number in range(1 + _TIMED_STEPS):
                    started = _now(device)
                    errors = _make(step, trainers, loaded)
                    if errors is None:
                        return "their batches cannot be stacked"
                    if any(errors):
                        return "a step by which both ways were timed could not be made"
                    if number:
                        times[joint].append(_now(device) - started)
                if step is not None:
                    step.release()
    finally:
        for trainer, state in zip(trainers, before, strict=True):
            _restore(trainer, state)
        logging.disable(disabled)
    return min(times[True]), min(times[False])


def _make(
    step: JointStep | None, trainers: Sequence[Trainer], loaded: Sequence[LabeledBatch]
) -> list[Exception | None] | None:
    if step is not None:
        return step.make(loaded)
    return [_step_alone(trainer, batch) for trainer, batch in zip(trainers, loaded, strict=True)]


def _step_alone(trainer: Trainer, batch: LabeledBatch) -> Exception | None:
    try:
        trainer.train_step(batch)
    except Exception as error:
        return error
    return None


def _is_measured(trainer: Trainer) -> bool:
    """Return True if the curves show something of the trainer's next step that only a step by itself gives."""
    step = trainer.progress.step + 1
    return trainer.timetable.gradients_are_due(step) or trainer.timetable.affinity_is_due(step)


def _snapshot(trainer: Trainer) -> dict[str, Any]:
    return {name: copy.deepcopy(trainer.state[name].state_dict()) for name in _CHANGED}


def _restore(trainer: Trainer, state: dict[str, Any]) -> None:
    for name in _CHANGED:
        trainer.state[name].load_state_dict(state[name])
    trainer.guard.forget()
    trainer.first_step_at = None


def _now(device: torch.device) -> float:
    """Return the time at which the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
