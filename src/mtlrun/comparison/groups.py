"""Records grouped by config, and what repetitions of a config got."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose, isfinite, isnan, nan
from statistics import fmean, stdev
from typing import Any

from mtlrun.comparison.data_sets import content_of, dataset_of, is_table, meaning_of_task
from mtlrun.records.identity import flatten
from mtlrun.records.record import Record, TaskMetrics

# Keys that the YAML fills in from those of the tasks, which are shown.
_DERIVED = ("dataset.tasks", "dataset.kinds", "dataset.sizes", "dataset.positives", "weighting.preferences")

#: How the label of a baseline begins.
BASELINE = "baseline "


@dataclass
class ConfigGroup:
    """The runs of one config with different seeds and folds: one row of a table.

    Args:
        label: where this config differs from others of the table, {key: value}.
        records: one per seed, or per seed and fold.
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

    @property
    def num_folds(self) -> int | None:
        """The number of folds that the data of these runs are divided into; None without folds."""
        num_folds: int | None = dataset_of(self.records[0]).get("num_folds")
        return num_folds

    def values(self, task: str, metric: str) -> dict[int | None, list[float]]:
        """Return {fold: the test metric of each completed run that has it}, NaN where it is not defined.

        There is a value per seed; without folds the only fold is None.
        """
        values: dict[int | None, list[float]] = {}
        for record in self.records:
            if metric in record.test.get(task, {}):
                value = record.test[task][metric]
                values.setdefault(dataset_of(record).get("fold"), []).append(nan if value is None else value)
        return values

    def samples(self, task: str, metric: str) -> list[float]:
        """Return what a mean is over, NaN where it is not defined: the value of each seed, or with folds of each fold.

        That of a fold is the mean over its seeds: runs on the same test samples are not independent of each other.
        """
        by_fold = self.values(task, metric)
        if self.num_folds is None:
            return by_fold.get(None, [])
        finite = [[value for value in values if isfinite(value)] for values in by_fold.values()]
        return [fmean(values) if values else nan for values in finite]

    def summary(self, task: str, metric: str) -> tuple[float, float, int]:
        """Return mean, standard deviation (NaN for one) and number of the finite samples."""
        values = [value for value in self.samples(task, metric) if isfinite(value)]
        spread = stdev(values) if len(values) > 1 else nan
        return (fmean(values) if values else nan), spread, len(values)


def group_by_config(records: Sequence[Record]) -> list[ConfigGroup]:
    """Group the runs that differ in their seed or fold only; groups are ordered by their first runs.

    Runs of two protocols, or on different data, are never in one group, whatever their configs are.
    """
    grouped: dict[str, list[Record]] = {}
    for record in records:
        key = repr((record.protocol, content_of(record), _repeated(record)))
        grouped.setdefault(key, []).append(record)
    configs = _flatten_all([group[0] for group in grouped.values()])
    data = [content_of(group[0]) for group in grouped.values()]
    for config, content in zip(configs, data, strict=True):
        others = [other for other, twin in zip(data, configs, strict=True) if _same(twin, config)]
        if len(set(others)) > 1:
            config["data"] = content
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if key not in _DERIVED and len({repr(config.get(key)) for config in configs}) > 1]
    names = [key for key in differing if key.startswith("names.")]
    # The keys of an option add nothing to its name, unless they differ between configs that use the same option.
    shown = names + [key for key in differing if key not in names and not _follows_from_name(key, configs)]
    return [
        ConfigGroup({key.removeprefix("names."): config[key] for key in shown if key in config}, group)
        for config, group in zip(configs, grouped.values(), strict=True)
    ]


def group_baselines(records: Sequence[Record]) -> list[ConfigGroup]:
    """Return a group for each baseline of the runs on one data set: a record per fold, with its test metrics.

    A metric that is not the same for all runs is left out: they have other splits, or measure the task differently.
    """
    groups = []
    for name in dict.fromkeys(name for record in records for name in record.baselines):
        with_it = [record for record in records if name in record.baselines]
        by_fold: dict[int | None, list[Record]] = {}
        for record in with_it:
            by_fold.setdefault(dataset_of(record).get("fold"), []).append(record)
        common = [
            replace(of_fold[0], protocol="standard", test=_common_metrics(name, of_fold))
            for of_fold in by_fold.values()
        ]
        if any(record.test for record in common):
            groups.append(ConfigGroup({"": f"{BASELINE}{name}"}, common))
    return groups


def _common_metrics(baseline: str, records: Sequence[Record]) -> TaskMetrics:
    """Return the metrics of a baseline that are the same for all of these runs that have them."""
    common: TaskMetrics = {}
    for task in dict.fromkeys(task for record in records for task in record.baselines[baseline]):
        found = [record for record in records if task in record.baselines[baseline]]
        for metric, value in found[0].baselines[baseline][task].items():
            others = [record.baselines[baseline][task].get(metric, nan) for record in found]
            alike = all(isclose(value, other, rel_tol=1e-6) or (isnan(value) and isnan(other)) for other in others)
            if alike and len({meaning_of_task(record, task) for record in found}) == 1:
                common.setdefault(task, {})[metric] = value
    return common


def _same(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two flat configs are equal, whatever the data that they were trained on."""
    keys = (config.keys() | other.keys()) - {"data"}
    return all(repr(config.get(key)) == repr(other.get(key)) for key in keys)


def _flatten_all(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the configs of runs with dotted keys; where their tasks differ, by a key `tasks` with the names instead.

    The keys of a task that only some of the configs have are left out, unless they differ between configs of the same
    tasks.
    """
    tasks = [list(record.config.get("tasks", {})) for record in records]
    common = set(tasks[0]).intersection(*tasks[1:])
    all_flat = [_repeated(record) for record in records]
    if all(set(names) == common for names in tasks):
        return all_flat
    kinds = [
        repr([(task, flat.get(f"tasks.{task}._target_")) for task in names])
        for flat, names in zip(all_flat, tasks, strict=True)
    ]
    values: dict[tuple[str, str], set[str]] = {}
    for kind, flat in zip(kinds, all_flat, strict=True):
        for key, value in flat.items():
            values.setdefault((kind, key), set()).add(repr(value))
    telling = {key for (_, key), different in values.items() if len(different) > 1}
    for flat, names in zip(all_flat, tasks, strict=True):
        dropped = tuple(f"tasks.{task}." for task in names if task not in common)
        for key in [key for key in flat if key.startswith(dropped) and key not in telling]:
            del flat[key]
    return [{"tasks": ", ".join(names)} | flat for flat, names in zip(all_flat, tasks, strict=True)]


def _repeated(record: Record) -> dict[str, Any]:
    """Return what the repetitions of a config have in common, with dotted keys: all but the seed and the fold.

    Where a table is does not matter if its content is known.
    """
    repeats = ["seed"] + ([] if dataset_of(record).get("num_folds") is None else ["dataset.fold"])
    repeats += ["dataset.path"] if is_table(record) and content_of(record) else []
    return {
        key: value
        for key, value in flatten(record.config).items()
        if key not in repeats and not key.startswith(tuple(f"{repeat}." for repeat in repeats))
    }


def _follows_from_name(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the value of `key` is the same in all configs whose option of that group has the same name."""
    name = f"names.{key.split('.')[0]}"
    values: dict[Any, set[str]] = {}
    for config in configs:
        if name not in config:
            return False
        values.setdefault(config[name], set()).add(repr(config.get(key)))
    return all(len(different) == 1 for different in values.values())
