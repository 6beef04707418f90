"""Selection rules: which tasks are selected together, by what, and on which scale."""

from collections.abc import Mapping

from mtlrun.config.settings import Settings
from mtlrun.datasets import MultiTaskDataset
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.selection import MEAN_SKILL, PER_TASK, LastMean, Selection, SelectionRule
from mtlrun.training.skill import Skills


def check_monitor(monitor: str, tasks: Mapping[str, Task]) -> None:
    """Raise ConfigError unless `monitor` is a rule over all tasks or a metric of a task."""
    if monitor == "mean_relative_gain":
        raise ConfigError(
            "trainer.monitor=mean_relative_gain is gone: it compared with what was selected, and could go in circles; "
            f"use {MEAN_SKILL}"
        )
    allowed = [MEAN_SKILL, PER_TASK, *(f"{name}/{metric}" for name in tasks for metric in tasks[name].directions())]
    if monitor not in allowed:
        raise ConfigError(f"trainer.monitor must be one of {', '.join(allowed)}, found {monitor!r}")


def check_declared_values(tasks: Mapping[str, Task]) -> None:
    """Raise ConfigError if `perfect_values` or `trivial_values` name metrics that a task does not have."""
    problems = []
    for name, task in tasks.items():
        known = task.directions()
        for declared in ("perfect_values", "trivial_values"):
            unknown = [metric for metric in getattr(task, declared) if metric not in known]
            if unknown:
                problems.append(
                    f"tasks.{name}: {type(task).__name__}.{declared} names {', '.join(unknown)}; its metrics are "
                    f"{', '.join(known)}"
                )
    if problems:
        raise ConfigError(problems)


def make_skills(tasks: Mapping[str, Task]) -> Skills:
    """Return the scale on which metrics of validation are compared."""
    directions = {name: dict(task.directions()) for name, task in tasks.items()}
    return Skills(directions, {name: dict(task.perfect_values) for name, task in tasks.items()})


def make_rules(
    settings: Settings, dataset: MultiTaskDataset, tasks: Mapping[str, Task], model: MultiTaskModel, skills: Skills
) -> list[SelectionRule]:
    """Return one rule for all tasks, or one for each if they are trained independently, or the user asks for it."""
    if dataset.protocol == "legacy":
        return [LastMean(list(tasks), dataset.averaged_evaluations)]
    monitor, patience, min_delta = settings.monitor, settings.patience, settings.min_delta
    apart = monitor == PER_TASK or (monitor == MEAN_SKILL and model.independent_tasks)
    main_metrics = {name: task.main_metric for name, task in tasks.items()}
    return [
        Selection(names, monitor, main_metrics, skills, patience, min_delta)
        for names in ([[name] for name in tasks] if apart else [list(tasks)])
    ]
