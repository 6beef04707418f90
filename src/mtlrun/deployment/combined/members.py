"""Members: the finished runs that an ensemble or a merged model is made from, and what they must have in common."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlrun.comparison.reading import read_runs
from mtlrun.config.schema import SIZE_KEYS
from mtlrun.errors import DataError
from mtlrun.records.record import Record

_LISTED = 4


@dataclass(frozen=True)
class Member:
    """A finished run.

    Args:
        folder: where it is.
        record: of the run.
    """

    folder: Path
    record: Record

    @property
    def name(self) -> str:
        """The id of the run."""
        return self.record.run_id


def find_members(folders: Iterable[Path]) -> list[Member]:
    """Return the trained runs in and below some folders, in their order; what was made from runs is left out.

    Raises:
        DataError: a folder does not exist, holds no run, or one that is not completed or cannot be read.
    """
    found = read_runs(folders)
    if found.problems:
        raise DataError("; ".join(found.problems))
    runs = [run for run in found.runs if run.record.made_from is None]
    if not runs:
        raise DataError("there are only results that were made from runs; give the folders of trained runs")
    if unfinished := [f"{run.record.run_id} ({run.state})" for run in runs if run.state != "completed"]:
        raise DataError(f"{listed(unfinished)}: not completed; give the folders of completed runs")
    if legacy := [run.record.run_id for run in runs if run.test_selected]:
        raise DataError(
            f"{listed(legacy)}: dataset.protocol=legacy, whose result is a mean over evaluations, for which no single "
            "model stands; give runs with dataset.protocol=standard"
        )
    return [Member(run.folder, run.record) for run in runs if run.folder is not None]


def check_splits(members: Sequence[Member]) -> None:
    """Raise DataError unless all members have the same samples and labels in each split, as far as records know."""
    first = members[0]
    for other in members[1:]:
        for split, entry in first.record.splits.items():
            there = other.record.splits.get(split, {})
            for key in ("fingerprint", "available") + (("samples",) if split != "train" else ()):
                if entry.get(key) != there.get(key):
                    raise DataError(
                        f"{first.name} and {other.name} have not the same data: their {split} splits differ in their "
                        "samples, labels or weights; give runs on one data set, with one division"
                    )


def check_tasks(members: Sequence[Member]) -> None:
    """Raise DataError unless all members predict the same tasks, of the same kinds and sizes."""
    first = members[0]
    for other in members[1:]:
        here, there = (_tasks(member.record) for member in (first, other))
        if here.keys() != there.keys():
            raise DataError(
                f"{first.name} and {other.name} have not the same tasks: {', '.join(here)} and {', '.join(there)}; "
                "give runs with the same tasks"
            )
        if different := [task for task in here if here[task] != there[task]]:
            task = different[0]
            raise DataError(
                f"{first.name} and {other.name} differ in what task {task} is: {_words(here[task])}, and "
                f"{_words(there[task])}; give runs with the same tasks"
            )


def _tasks(record: Record) -> dict[str, dict[str, Any]]:
    """Return {task: its kind, and the numbers that say how large it is}."""
    return {
        name: {"kind": node.get("_target_")}
        | {key: value for key, value in node.items() if key in SIZE_KEYS and value is not None}
        | record.task_sizes.get(name, {})
        for name, node in record.config.get("tasks", {}).items()
    }


def _words(task: Mapping[str, Any]) -> str:
    kind, *sizes = (str(value).rpartition(".")[2] if key == "kind" else f"{key}={value}" for key, value in task.items())
    return " with ".join(filter(None, [kind, ", ".join(sizes)]))


def listed(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
