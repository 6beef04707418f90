"""Data sets of runs: which runs may stand in one table, and which results of a task in one column."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.records.record import Record

#: Kind of a task, its columns of a table, and the unit of its errors where that is not the column's.
Meaning = tuple[str, str, str]

# Keys of a dataset that say where a table of the user's is, and its images.
_TABLES = ("path", "labels")
_PATHS = (*_TABLES, "root")


def dataset_of(record: Record) -> Mapping[str, Any]:
    """Return the group `dataset` of a run's config, empty if there is none."""
    node = record.config.get("dataset")
    return node if isinstance(node, Mapping) else {}


def content_of(record: Record) -> str:
    """Return a short hash of the content of the files that a run read; their paths and times do not matter."""
    content = [stamp.get("content") or stamp.get("names") for stamp in record.data.values()]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:6] if content else ""


def meaning_of_task(record: Record, task: str) -> Meaning:
    """Return what must be equal for two results of tasks of one name to be comparable."""
    kind = str(record.config.get("tasks", {}).get(task, {}).get("_target_", "")).rpartition(".")[2]
    dataset = dataset_of(record)
    targets = dataset.get("targets")
    column = targets.get(task, task) if isinstance(targets, Mapping) else task
    scaled = task in (dataset.get("standardize_targets") or ())  # in records of earlier versions
    columns = ", ".join(map(str, column)) if isinstance(column, list) else str(column)
    return kind, f"column {columns}", "in standard deviations" if scaled else ""


def group_by_data(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return {title: the runs on one data set}, in the order of their first runs.

    Data sets are told apart by their names. Tables of the user's that share a name, that of a file or of an option, are
    one if they have the same content, wherever they are, or the same place and the same columns: then the file has
    changed in between.
    """
    by_name: dict[str, list[list[Record]]] = {}
    for record in records:
        names = record.config["names"]
        sets = by_name.setdefault(str(names.get("data", names["dataset"])), [])
        same = [number for number, runs in enumerate(sets) if any(_is_same(record, other) for other in runs)]
        for number in reversed(same[1:]):
            sets[same[0]] += sets.pop(number)
        if same:
            sets[same[0]].append(record)
        else:
            sets.append([record])
    titles: dict[str, list[Record]] = {}
    for name, sets in by_name.items():
        for runs in sets:
            title = name if len(sets) == 1 or not is_table(runs[0]) else f"{name} ({_place(runs[0])})"
            titles[title if title not in titles else f"{title}, data {content_of(runs[0])}"] = runs
    return titles


def is_table(record: Record) -> bool:
    """Return True if the data is a table of the user's, of labels for one."""
    return any(dataset_of(record).get(key) is not None for key in _TABLES)


def _is_same(one: Record, other: Record) -> bool:
    tables = is_table(one), is_table(other)
    if not all(tables):
        return not any(tables)
    if content_of(one) and content_of(one) == content_of(other):
        return True
    if _place(one) != _place(other):
        return False
    columns, others = _columns(one), _columns(other)
    return not columns or not others or 2 * len(columns & others) > len(columns | others)


def _place(record: Record) -> str:
    """Return where the user's table is."""
    dataset = dataset_of(record)
    paths = [dataset[key] for key in _PATHS if dataset.get(key) is not None]
    listed = [", ".join(map(str, path.values())) if isinstance(path, Mapping) else str(path) for path in paths]
    return ", ".join(listed)


def _columns(record: Record) -> set[str]:
    """Return the columns of a table that a record knows; none if it does not hold all."""
    learned = record.learned
    inputs, targets = learned.get("inputs", {}), learned.get("targets", {})
    if "columns" not in inputs or not targets:
        return set()
    return {
        *inputs["columns"],
        *inputs.get("excluded", ()),
        *(column for entry in targets.values() for column in entry["columns"]),
    }
