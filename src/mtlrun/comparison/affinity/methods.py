"""Methods: configs that train alike, whatever tasks they have."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.labels import label_configs
from mtlrun.comparison.run import Run
from mtlrun.comparison.single_task import training_key

Item = TypeVar("Item")

# What is logged does not change what is trained.
_LOGGED = ("trainer.log_every", "trainer.log_gradients_every", "trainer.log_affinity_every", "trainer.log_pictures")
# What follows from the tasks, or is repeated.
_OF_TASKS = ("tasks.", "dataset.tasks", "dataset.targets", "dataset.predict", "dataset.exclude", "seed", "dataset.fold")
_OF_METHOD = ("model.", "weighting.", "match_parameters.", "names.model", "names.weighting")


def by_method(groups: Sequence[ConfigGroup]) -> list[tuple[str, list[ConfigGroup]]]:
    """Return (label, configs) of each method; the label is "" if there is only one."""
    return by_key(groups, _method, lambda group: group.runs[0])


def by_key(
    items: Sequence[Item], key: Callable[[Item], str], run: Callable[[Item], Run]
) -> list[tuple[str, list[Item]]]:
    """Return (label, items) of each key; the label is "" if there is only one.

    Args:
        items: runs, or groups of runs.
        key: what items that belong together have in common.
        run: of an item, from whose config the label is made.
    """
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    first = [run(same[0]) for same in found.values()]
    labels = label_configs([_without_tasks(each) for each in first], [each.content for each in first]) if first else []
    return list(zip(map(_describe, labels, first), found.values(), strict=True))


def widest(groups: Sequence[ConfigGroup]) -> tuple[list[ConfigGroup], list[str]]:
    """Return the configs with the most tasks, and a note on the others if there are any.

    What is found in a run depends on all tasks that are trained in it.
    """
    most = max((len(tasks_of(group)) for group in groups), default=0)
    left_out = sum(len(tasks_of(group)) < most for group in groups)
    notes = [f"without {left_out} configs of fewer tasks"] if left_out else []
    return [group for group in groups if len(tasks_of(group)) == most], notes


def tasks_of(group: ConfigGroup) -> list[str]:
    """Return the tasks of a config."""
    return list(group.runs[0].record.config.get("tasks", {}))


def all_tasks(groups: Sequence[ConfigGroup]) -> list[str]:
    """Return the tasks of all configs, in the order of the one with the most of them."""
    of_each = sorted(map(tasks_of, groups), key=len, reverse=True)
    return list(dict.fromkeys(task for tasks in of_each for task in tasks))


def _method(group: ConfigGroup) -> str:
    run = group.runs[0]
    keys = sorted((key, value) for key, value in run.config.items() if key.startswith(_OF_METHOD))
    return repr((training_key(run), keys))


def _describe(label: dict[str, object], run: Run) -> str:
    names = run.record.config["names"]
    return ", ".join(str(value) if key in names else f"{key}={value}" for key, value in label.items())


def _without_tasks(run: Run) -> dict[str, object]:
    return {key: value for key, value in run.config.items() if not key.startswith(_OF_TASKS + _LOGGED)}
