"""Progress: the position of a training, and what is due there."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from mtlrun.config.settings import Settings

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Counts of completed steps, epochs and evaluations."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # of this epoch
    evaluations: int = 0
    evaluated_step: int = 0  # of the last evaluation
    seconds: float = 0.0
    waiting: float = 0.0  # seconds of these in which the next batch was waited for
    resumed: int = 0
    joint_steps: int = 0  # made at once with those of other seeds
    #: {task: steps in which its labels had no part, since the method needs a label in each part of the batch}.
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, tasks: Collection[str], num_parts: int) -> None:
        """Count a step that is made without the labels of some tasks; the first one is logged."""
        if tasks and not self.left_out:
            logger.warning(
                "step %d: the labels of %s are left out, since the weighting needs one in each of %d parts of a batch; "
                "a larger trainer.batch_size helps (further steps are only counted)",
                self.step + 1,
                ", ".join(tasks),
                num_parts,
            )
        for task in tasks:
            self.left_out[task] = self.left_out.get(task, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        kinds = {name: type(value) for name, value in self.state_dict().items()}
        if {name: type(value) for name, value in state.items()} != kinds:
            raise TypeError(f"progress must hold {', '.join(kinds)}, found {state}")
        for name, value in state.items():
            setattr(self, name, value)


@dataclass(frozen=True)
class Timetable:
    """When to evaluate and to log.

    Args:
        settings: the group `trainer`.
        steps_per_epoch, total_steps: the length of the training.
    """

    settings: Settings
    steps_per_epoch: int
    total_steps: int

    def evaluation_is_due(self, progress: Progress) -> bool:
        """Return True if the validation split is to be evaluated before the next step."""
        if progress.step == progress.evaluated_step:
            return False
        if self.settings.evaluate_every_steps is not None:
            due = progress.step % self.settings.evaluate_every_steps == 0
        else:
            every = self.settings.evaluate_every or 1
            due = progress.batch == self.steps_per_epoch and (progress.epoch + 1) % every == 0
        return due or progress.step >= self.total_steps

    def log_is_due(self, step: int) -> bool:
        """Return True if a point of the curves is due after step number `step`, counted from 1."""
        return step % self.settings.log_every == 0 or step >= self.total_steps

    def gradients_are_due(self, step: int) -> bool:
        """Return True if the curves show task gradients at this step for methods that do not need them."""
        return _is_multiple(step, self.settings.log_gradients_every)

    def affinity_is_due(self, step: int) -> bool:
        """Return True if lookahead affinities are measured before this step is made."""
        return _is_multiple(step, self.settings.log_affinity_every)


def _is_multiple(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
