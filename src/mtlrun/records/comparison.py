"""Comparison of runs: records grouped by config, with statistics over the seeds. Reads records and nothing else."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mtlrun.errors import DataError
from mtlrun.records.folder import RECORD
from mtlrun.records.identity import flatten
from mtlrun.records.record import Record


@dataclass
class ConfigGroup:
    """The runs of one config with different seeds: one row of a table.

    Args:
        label: where this config differs from others of the table, {key: value}.
        records: one per seed.
    """

    label: dict[str, Any]
    records: list[Record] = field(default_factory=list)

    @property
    def test_selected(self) -> bool:
        """True if the results are means over the last evaluations of the test split."""
        return self.records[0].protocol == "legacy"

    def averaged_evaluations(self) -> list[int]:
        """Return the number of evaluations behind each test-selected result; empty if the results are not."""
        with_result = [record for record in self.records if record.test] if self.test_selected else []
        return [entry["evaluations"] for record in with_result for entry in record.selection]

    def values(self, task: str, metric: str) -> list[float]:
        """Return the test metric of each completed run that has it; NaN where it is not defined."""
        found = [record.test[task][metric] for record in self.records if metric in record.test.get(task, {})]
        return [nan if value is None else value for value in found]

    def summary(self, task: str, metric: str) -> tuple[float, float, int]:
        """Return mean, standard deviation (NaN for one) and number of the finite values, over the seeds."""
        values = [value for value in self.values(task, metric) if isfinite(value)]
        spread = stdev(values) if len(values) > 1 else nan
        return (fmean(values) if values else nan), spread, len(values)


def read_records(folders: Iterable[Path]) -> list[Record]:
    """Return all records in and below `folders`.

    Raises:
        DataError: a folder does not exist, or holds no record.
    """
    all_records: list[Record] = []
    for folder in folders:
        if not folder.exists():
            raise DataError(f"{folder}: there is no such folder")
        records = [Record.read(path.parent) for path in sorted(folder.rglob(RECORD))]
        readable = [record for record in records if record is not None]
        if not readable:
            raise DataError(f"{folder}: no run has left a record in or below this folder")
        all_records += readable
    return list({record.run_id: record for record in all_records}.values())


def group_by_config(records: Sequence[Record]) -> list[ConfigGroup]:
    """Group the runs that differ in their seed only; groups are ordered by their first runs.

    Runs of two protocols, or on different data, are never in one group, whatever their configs are.
    """
    grouped: dict[str, list[Record]] = {}
    for record in records:
        key = repr((record.protocol, _data(record), _without_seed(record.config)))
        grouped.setdefault(key, []).append(record)
    configs = _flatten_all([group[0].config for group in grouped.values()])
    data = [_data(group[0]) for group in grouped.values()]
    for config, content in zip(configs, data, strict=True):
        others = [other for other, twin in zip(data, configs, strict=True) if _same(twin, config)]
        if len(set(others)) > 1:
            config["data"] = content
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    names = [key for key in differing if key.startswith("names.")]
    # The keys of an option add nothing to its name, unless they differ between configs that use the same option.
    shown = names + [key for key in differing if key not in names and not _follows_from_name(key, configs)]
    return [
        ConfigGroup({key.removeprefix("names."): config[key] for key in shown if key in config}, group)
        for config, group in zip(configs, grouped.values(), strict=True)
    ]


def _data(record: Record) -> str:
    """Return a short hash of the content of the files that a run read; their paths and times do not matter."""
    content = [stamp.get("content") or stamp.get("names") for stamp in record.data.values()]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:6] if content else ""


def _same(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two flat configs are equal, whatever the data that they were trained on."""
    keys = (config.keys() | other.keys()) - {"data"}
    return all(repr(config.get(key)) == repr(other.get(key)) for key in keys)


def _flatten_all(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the configs with dotted keys; where their tasks differ, by a key `tasks` with the names instead.

    The keys of a task that only some of the configs have are left out.
    """
    tasks = [list(config.get("tasks", {})) for config in configs]
    common = set(tasks[0]).intersection(*tasks[1:])
    differ = any(set(names) != common for names in tasks)
    all_flat = []
    for config, names in zip(configs, tasks, strict=True):
        flat = _without_seed(config)
        if differ:
            dropped = tuple(f"tasks.{task}." for task in names if task not in common)
            flat = {"tasks": ", ".join(names)} | {
                key: value for key, value in flat.items() if not key.startswith(dropped)
            }
        all_flat.append(flat)
    return all_flat


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(config).items() if key != "seed"}


def _follows_from_name(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the value of `key` is the same in all configs whose option of that group has the same name."""
    name = f"names.{key.split('.')[0]}"
    values: dict[Any, set[str]] = {}
    for config in configs:
        if name not in config:
            return False
        values.setdefault(config[name], set()).add(repr(config.get(key)))
    return all(len(different) == 1 for different in values.values())
