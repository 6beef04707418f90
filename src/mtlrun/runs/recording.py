"""The record of a run: what is known when it starts, and what is known when it ends."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any

from mtlrun.errors import DivergedError, LockLostError, MtlrunError, RunInterruptedError, StorageError
from mtlrun.records.identity import run_id
from mtlrun.records.notes import taking_notes
from mtlrun.records.record import Record
from mtlrun.records.stamps import as_plain
from mtlrun.setup.environment import describe
from mtlrun.setup.model_size import count_parameters
from mtlrun.setup.peak_memory import peak_memory_mib
from mtlrun.setup.placing import describe_place
from mtlrun.training.intervals import LEVEL, SEED, find_intervals
from mtlrun.training.outputs import SplitOutputs
from mtlrun.training.parts import Parts
from mtlrun.training.trainer import Trainer

logger = logging.getLogger("mtlrun")

_LONGEST_SECTION = 20_000  # characters; `compare` reads the records of many runs


def new_record(config: Mapping[str, Any], parts: Parts, overrides: Sequence[str]) -> Record:
    """Return the record of a run that starts."""
    forward, backward = _passes_per_step(parts)
    groups, learners = parts.optimizer.param_groups, parts.weighting.learners()
    parameters = {group["name"]: count_parameters(group["params"]) for group in groups}
    parameters |= {name: count_parameters(learner.parameters) for name, learner in learners.items()}
    frozen = count_parameters(parameter for parameter in parts.model.parameters() if not parameter.requires_grad)
    return Record(
        run_id=run_id(config),
        config=dict(config),
        overrides=list(overrides),
        task_sizes={name: dict(sizes) for name, sizes in parts.task_sizes.items()},
        directions={name: dict(task.directions()) for name, task in parts.tasks.items()},
        main_metrics={name: task.main_metric for name, task in parts.tasks.items()},
        protocol=parts.dataset.protocol,
        chosen=dict(parts.chosen),
        total_steps=parts.total_steps,
        splits={name: asdict(summary) for name, summary in parts.splits.items()},
        notes=list(parts.notes),
        learned={name: part for name, part in parts.learned.items() if len(json.dumps(part)) <= _LONGEST_SECTION},
        data=as_plain(parts.data),
        parameters=parameters | ({"frozen": frozen} if frozen else {}),
        learning_rates={group["name"]: group["initial_lr"] for group in groups}
        | {name: learner.lr for name, learner in learners.items()},
        macs=parts.macs,
        match=None if parts.match is None else asdict(parts.match),
        passes_per_step={"forward": forward, "backward": backward},
        started=now(),
        environment=describe(parts.device)
        | {
            "cache": describe_place(parts.dataset.cache, parts.loaders["train"].split),
            "fused_optimizer": bool(parts.optimizer.defaults.get("fused")),
        },
    )


def _passes_per_step(parts: Parts) -> tuple[int, int]:
    """Return the numbers of forward and backward passes in a step."""
    weighting, settings = parts.weighting, parts.settings
    forward, backward = weighting.passes(len(parts.tasks))
    two_pass = settings.two_pass or settings.stream_rows
    if settings.micro_batches > 1:
        forward += weighting.needs_batch_losses + two_pass
    return forward, backward + two_pass


def record_intervals(record: Record, parts: Parts, outputs: SplitOutputs) -> None:
    """Write the intervals of the result into the record; `outputs` are those for the test split."""
    groups = parts.dataset.groups("test")
    found = find_intervals(outputs, record.test, parts.device, groups)
    record.intervals = {"test": found.bounds}
    record.bootstrap = {
        "level": LEVEL,
        "seed": SEED,
        "resamples": found.resamples,
        "groups": groups is not None,
        "drawn_from": found.units,
        "undefined": found.undefined,
        "by_wilson": found.by_wilson,
    }


@contextmanager
def recording(record: Record, folder: Path) -> Iterator[None]:
    """Write the record when the block ends: completed, or with what ended it early.

    An error of the block is raised, even if the record cannot be written either. The notes among the log lines of the
    block are added to those of the record.
    """
    try:
        with taking_notes() as notes:
            try:
                yield
            finally:
                record.notes += notes
        record.status = "completed"
        record.write(folder)
    except BaseException as error:
        _note_failure(record, error)
        if record.status == "failed" and not isinstance(error, MtlrunError):
            logger.debug("%s", error, exc_info=True)  # the traceback, to run.log only
        try:
            record.write(folder)
        except LockLostError:
            pass  # the record is that of another process, which may have completed the run
        except StorageError as second:
            logger.warning("%s; it still has what was known before", second)
        raise
    finally:
        logger.info("%s: %s%s", folder, record.status, f" ({record.error})" if record.error else "")


def _note_failure(record: Record, error: BaseException) -> None:
    """Write into the record why a run ended early."""
    if isinstance(error, DivergedError):
        record.status = "diverged"
    else:
        interrupted = isinstance(error, RunInterruptedError | KeyboardInterrupt)
        record.status = "interrupted" if interrupted else "failed"
    record.error = str(error) if isinstance(error, MtlrunError) else f"{type(error).__name__}: {error}"


def complete(record: Record, trainer: Trainer, started: float) -> None:
    """Write into the record what is known when a run ends, in whatever way.

    Args:
        record: of the run.
        trainer: that trained it.
        started: `time.monotonic()` when the program started.
    """
    parts, progress = trainer.parts, trainer.progress
    record.steps = progress.step
    record.epochs = progress.epoch + (progress.batch == parts.steps_per_epoch)
    record.selection = [rule.summary() for rule in parts.selection_rules if rule.number]
    if record.selection:
        _record_skills(record, trainer)
    record.resumed = progress.resumed
    record.seeds_together, record.joint_steps = list(trainer.seeds_together), progress.joint_steps
    record.fallbacks = parts.weighting.fallbacks
    record.skipped_steps = trainer.skips.total()
    record.left_out = dict(progress.left_out)
    record.seconds |= {"train": progress.seconds, "waiting": progress.waiting}
    if trainer.first_step_at is not None:
        record.seconds["to_first_step"] = trainer.first_step_at - started
    record.peak_memory_mib = peak_memory_mib(parts.device)
    record.ended = now()
    if record.ended < record.started:
        note = "the clock was set back during the run, which seems to end before it started; durations are right"
        logger.warning("%s", note)
        record.notes.append(note)


def _record_skills(record: Record, trainer: Trainer) -> None:
    """Write what constant predictions get into the record and, if a checkpoint was selected, the skills."""
    skills = trainer.parts.skills
    if record.protocol == "legacy":  # under which "val" is the test split
        record.trivial = {"test": skills.trivial.get("val", {})}
        return
    record.trivial = dict(skills.trivial)
    for task, best in trainer.task_bests.summary().items():
        metric = skills.compared(task, record.main_metrics[task])
        skill = skills.skill(task, metric, trainer.selected.metrics[task][metric])
        record.skills[task] = {"selected": nan if skill is None else float(skill), "best": best["skill"],
                               "best_epoch": best["epoch"], "best_step": best["step"]}  # fmt: skip


def now() -> str:
    """Return the time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
