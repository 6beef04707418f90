"""From records to one table: a row for each config, its seeds put together. Reads records and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mtlrun.errors import DataError
from mtlrun.records.record import FILE_NAME, Record

# What tells the seeds of one config apart, or cannot change a result.
_IGNORED = ("seed", "runtime")


@dataclass
class Row:
    """The runs that differ in their seed alone.

    Args:
        label: where this config differs from others of the table, {key: value}.
        records: one per seed.
    """

    label: dict[str, Any]
    records: list[Record] = field(default_factory=list)

    @property
    def test_selected(self) -> bool:
        """Whether the results are means over the last evaluations of the test split."""
        return self.records[0].protocol == "legacy"

    def averaged(self) -> list[int]:
        """Return over how many evaluations each result is a mean, where they are test-selected."""
        with_result = [record for record in self.records if record.test] if self.test_selected else []
        return [entry["evaluations"] for record in with_result for entry in record.selection]

    def values(self, task: str, metric: str) -> list[float]:
        """Return the test metric of each completed run."""
        return [record.test[task][metric] for record in self.records if task in record.test]

    def summary(self, task: str, metric: str) -> tuple[float, float, int]:
        """Return mean, standard deviation over the seeds (NaN for one), and how many there are."""
        values = self.values(task, metric)
        spread = stdev(values) if len(values) > 1 else nan
        return (fmean(values) if values else nan), spread, len(values)


def read_records(folders: Iterable[Path]) -> list[Record]:
    """Return all records in and below `folders`.

    Raises:
        DataError: a folder is not there, or holds no record.
    """
    found = []
    for folder in folders:
        if not folder.exists():
            raise DataError(f"{folder}: there is no such folder")
        records = [Record.read(path.parent) for path in sorted(folder.rglob(FILE_NAME))]
        readable = [record for record in records if record is not None]
        if not readable:
            raise DataError(f"{folder}: no run has left a record in or below this folder")
        found += readable
    return list({record.run_id: record for record in found}.values())


def rows(records: Sequence[Record]) -> list[Row]:
    """Put the runs together that differ in their seed alone; rows stand in the order of their first runs.

    Runs of two protocols are never one row, whatever their configs say.
    """
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(repr((record.protocol, _relevant(record.config))), []).append(record)
    flat = _name_tasks([_relevant(group[0].config) for group in grouped.values()])
    keys = list(dict.fromkeys(key for entry in flat for key in entry))
    differing = [key for key in keys if len({repr(entry.get(key)) for entry in flat}) > 1]
    named = [key for key in differing if key.startswith("names.")]
    # An option's own keys say nothing that its name does not, unless they differ under one name.
    shown = named + [key for key in differing if key not in named and not _follows_from_name(key, flat)]
    return [
        Row({key.removeprefix("names."): entry[key] for key in shown if key in entry}, group)
        for entry, group in zip(flat, grouped.values(), strict=True)
    ]


def _name_tasks(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the configs with flat keys; a task that not all of them have is named, and none of its keys are told."""
    tasks = [list(config.get("tasks", {})) for config in configs]
    common = set(tasks[0]).intersection(*tasks[1:])
    found = []
    for config, own in zip(configs, tasks, strict=True):
        flat = _flatten(config)
        if any(set(each) != common for each in tasks):
            theirs = tuple(f"tasks.{task}." for task in own if task not in common)
            flat = {"tasks": ", ".join(own)} | {key: value for key, value in flat.items() if not key.startswith(theirs)}
        found.append(flat)
    return found


def _relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _IGNORED}


def _follows_from_name(key: str, flat: Sequence[Mapping[str, Any]]) -> bool:
    name = f"names.{key.split('.')[0]}"
    values: dict[Any, set[str]] = {}
    for entry in flat:
        if name not in entry:
            return False
        values.setdefault(entry[name], set()).add(repr(entry.get(key)))
    return all(len(found) == 1 for found in values.values())


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
