"""Simple predictors, such as a constant or a linear model, that the runs of a table were held against."""

from collections.abc import Sequence
from dataclasses import replace
from math import isclose, isnan, nan

from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.run import Run
from mtlrun.records.record import TaskMetrics


def group_predictors(runs: Sequence[Run]) -> list[ConfigGroup]:
    """Return a group for each simple predictor of the runs on one data set: a run per fold, with its test metrics.

    A metric that is not the same for all runs is left out: they have other splits, or measure the task differently.
    """
    groups = []
    for name in dict.fromkeys(name for run in runs for name in run.record.baselines):
        by_fold: dict[int | None, list[Run]] = {}
        for run in runs:
            if name in run.record.baselines:
                by_fold.setdefault(run.fold, []).append(run)
        common = [
            replace(of_fold[0].record, protocol="standard", status="completed", test=_common_metrics(name, of_fold))
            for of_fold in by_fold.values()
        ]
        if any(record.test for record in common):
            groups.append(ConfigGroup({"": name}, [Run(record) for record in common]))
    return groups


def _common_metrics(name: str, runs: Sequence[Run]) -> TaskMetrics:
    """Return the metrics of a predictor that are the same for all of these runs that have them."""
    common: TaskMetrics = {}
    for task in dict.fromkeys(task for run in runs for task in run.record.baselines[name]):
        found = [run for run in runs if task in run.record.baselines[name]]
        if len({run.meaning(task) for run in found}) > 1:
            continue
        for metric, value in found[0].record.baselines[name][task].items():
            others = [run.record.baselines[name][task].get(metric, nan) for run in found]
            if all(isclose(value, other, rel_tol=1e-6) or (isnan(value) and isnan(other)) for other in others):
                common.setdefault(task, {})[metric] = value
    return common
