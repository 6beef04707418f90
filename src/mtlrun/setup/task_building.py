"""The tasks of a run, built from the config and from what the dataset knows of them, such as the number of classes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from mtlrun.config.instantiate import build
from mtlrun.config.schema import SIZE_KEYS, explain_task_name, unknown_task
from mtlrun.datasets import MultiTaskDataset
from mtlrun.errors import ConfigError
from mtlrun.tasks import Task

#: {task: {key: number}}.
Sizes = dict[str, dict[str, int]]


def check_task_names(names: Iterable[str]) -> list[str]:
    """Return the problems of tasks' names, which become parts of tags, of config keys and of parameter names."""
    return [
        explain_task_name(name)
        for name in names
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name in ("shared", "weighting") or hasattr(nn.ModuleDict, name)
    ]


def build_tasks(
    nodes: Mapping[str, Any], dataset: MultiTaskDataset | None, name: str
) -> tuple[dict[str, Task], Sizes, list[str]]:
    """Return the tasks that can be built, the sizes that the config leaves out and the dataset gave, and the problems.

    Args:
        nodes: {task: its config node}.
        dataset: None if it could not be built.
        name: of the dataset.
    """
    tasks: dict[str, Task] = {}
    found: Sizes = {}
    problems: list[str] = []
    for task, node in nodes.items():
        if isinstance(node, Mapping) and "_target_" not in node:
            known = [other for other, options in nodes.items() if "_target_" in options]
            problems.append(unknown_task(task, known))
            continue
        sizes = {}
        for key in [key for key in SIZE_KEYS if key in node and node[key] is None]:
            sizes[key] = 2  # only to find other problems
            if dataset is not None and task in dataset.task_sizes:
                sizes[key] = dataset.task_sizes[task]
                found[task] = sizes
            elif dataset is not None and task in dataset.task_names:
                problems.append(
                    f"tasks.{task}.{key} must be given, since dataset={name} does not know it: write "
                    f"tasks.{task}.{key}=<number>, or let the dataset have task_sizes = {{{task!r}: <number>}}"
                )
        try:
            tasks[task] = build({**node, **sizes}, f"tasks.{task}", Task)
        except ConfigError as error:
            problems += error.problems
    return tasks, found, problems


def learned_from_data(dataset: MultiTaskDataset, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return what dataset and tasks learned from the data."""
    of_tasks = {name: dict(task.learned()) for name, task in tasks.items() if task.learned()}
    return {**dataset.learned(), **({"tasks": of_tasks} if of_tasks else {})}
