"""Doubts about a run before it starts: few steps, a long warm-up, splits that measure little, unsuitable targets."""

from collections.abc import Mapping
from math import ceil, sqrt
from typing import Any

from mtlrun.config.settings import Settings
from mtlrun.datasets.base import Split
from mtlrun.records.record import SplitSummary
from mtlrun.tasks import Task
from mtlrun.training.intervals import wilson_interval
from mtlrun.training.optim import Schedule

# A run of fewer steps than this is pointed out; so many are advised.
_FEW_STEPS, _ENOUGH_STEPS = 100, 500
# A split with fewer samples than this is pointed out.
_FEW_SAMPLES = 50
# The quantile of the normal distribution for intervals of 95 %.
_QUANTILE = 1.96


def doubt_plan(settings: Settings, num_batches: int) -> list[str]:
    """Return a line on a run of few steps; none if its batches are limited, which is done for trials.

    Args:
        settings: the group `trainer`.
        num_batches: of an epoch of training.
    """
    total_steps = settings.steps or (settings.epochs or 0) * num_batches
    if total_steps >= _FEW_STEPS or settings.limit_batches is not None:
        return []
    if settings.steps:
        plan, way = "", f"set trainer.steps={_ENOUGH_STEPS}, say"
    else:
        per_epoch = f"{num_batches} batch{'' if num_batches == 1 else 'es'}"
        plan = f" ({settings.epochs} epoch{'' if settings.epochs == 1 else 's'} of {per_epoch})"
        way = f"set trainer.epochs={ceil(_ENOUGH_STEPS / num_batches)}, say, or a smaller trainer.batch_size"
    steps = f"{total_steps} step{'' if total_steps == 1 else 's'}"
    return [f"the run makes {steps}{plan}, and a network needs hundreds to learn anything; {way}"]


def doubt_warmup(schedule: Schedule, settings: Settings, num_batches: int) -> list[str]:
    """Return a line on a warm-up that is longer than the training: learning rates never reach their values.

    Args:
        schedule: of the learning rates.
        settings: the group `trainer`.
        num_batches: of an epoch of training.
    """
    total_steps = settings.steps or (settings.epochs or 0) * num_batches
    if not total_steps or schedule.warmup_epochs * num_batches <= total_steps:
        return []
    highest = schedule.factor(total_steps - 1, num_batches, total_steps)
    return [
        f"scheduler.warmup_epochs={schedule.warmup_epochs:g} is longer than the training, "
        f"{total_steps / num_batches:.3g} epochs: the learning rates rise to {100 * highest:.2g} % of their values only"
    ]


def doubt_splits(
    splits: Mapping[str, SplitSummary], tasks: Mapping[str, Task], dataset: Mapping[str, Any]
) -> list[str]:
    """Return a line on the small splits of a run, with what a metric on so few samples is worth.

    Args:
        splits: what the run sees of each.
        tasks: those of the run.
        dataset: the group `dataset` of the config.
    """
    evaluated = [split for name, split in splits.items() if name != "train"]
    if all(split.samples == 1 and split.fingerprint == evaluated[0].fingerprint for split in evaluated):
        return []  # a function to be minimized, without data
    lines = []
    # What trainer.limit_batches leaves of a split is that small on purpose.
    small = {name: split.samples for name, split in splits.items() if split.samples == split.available < _FEW_SAMPLES}
    train = small.pop("train", None)
    if train is not None:
        lines.append(f"the train split has {_count(train)}: little can be learned from so few")
    if small:
        counts = " and ".join(f"the {name} split has {_count(number)}" for name, number in small.items())
        folds = "; -m study=folds tests on every row" if _may_have_folds(dataset) else ""
        lines.append(f"{counts}: {_worth(min(small.values()), tasks)}{folds}")
    return lines


def _may_have_folds(dataset: Mapping[str, Any]) -> bool:
    """Return True if nothing but `num_folds` is missing for cross-validation: see `datasets.tables.splits.division`."""
    files = dataset.get("labels", dataset.get("path"))
    divides = dataset.get("split_column") is not None or dataset.get("time_column") is not None
    return dataset.get("num_folds", 0) is None and not divides and not isinstance(files, Mapping)


def _count(samples: int) -> str:
    return f"{samples} sample{'' if samples == 1 else 's'}"


def _worth(samples: int, tasks: Mapping[str, Task]) -> str:
    """Return in words what a metric on so few samples is worth; of pixels or boxes, there are many in each."""
    single = [task for task in tasks.values() if not task.dense and not task.boxes]
    if not single:
        return "what is measured on so few says little"
    of_classes = any(task.categorical for task in single)
    worth = f"an accuracy of {_interval(samples)}" if of_classes else f"an error is known {_percent(samples)} or so"
    return f"with {samples}, {worth} (95 % interval)"


def _interval(samples: int) -> str:
    """Return in words from where to where an accuracy of 0.8 may be, by Wilson's score interval."""
    right = round(0.8 * samples) / samples
    low, high = wilson_interval(right, samples)
    return f"{right:.2f} may be anything from {low:.2f} to {high:.2f}"


def _percent(samples: int) -> str:
    """Return how exactly a root mean squared error of normal errors is known."""
    return f"within {100 * _QUANTILE / sqrt(2 * samples):.0f} %"


def doubt_targets(tasks: Mapping[str, Task], split: Split) -> list[str]:
    """Return a line on each task that has doubts about its targets for training.

    Args:
        tasks: those of the run.
        split: for training; without targets in memory, nothing is known of them.
    """
    lines = []
    for name, task in tasks.items():
        if split.targets is not None and type(task).doubt_targets is not Task.doubt_targets:
            target = split.targets[name]
            target = target[task.labeled(target)]
            lines += (
                [f"task {name}: {doubt}" for doubt in task.doubt_targets(target, f"tasks.{name}")]
                if len(target)
                else []
            )
    return lines
