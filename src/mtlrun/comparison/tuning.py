"""Tuning: where numbers such as learning rates were swept, what each method gets by the trial that validation prefers.

The trial is chosen on validation alone, by the mean skill of its selected checkpoints, among the trials of which the
smallest fraction of the runs diverged, and then has its test metrics; beside it stands the median of all trials, for
what the method gets untuned. A method with more trials has an advantage that its own merit does not explain.
"""

from collections.abc import Sequence
from math import isfinite, nan
from statistics import fmean, median
from typing import Any

from mtlrun.comparison.analysis_results import Spread, TunedMethod, Tuning
from mtlrun.comparison.table import ComparisonTable, Row

_GROUPS = ("optimizer.", "scheduler.", "weighting.", "tasks.", "model.")


def find_tuning(table: ComparisonTable) -> Tuning | None:
    """Return what the trials of each method got; None if no method has several."""
    rows = table.configs
    keys = [key for key in table.labels if key.startswith(_GROUPS) and _is_swept(key, rows)]
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(repr(_method(row, keys)), []).append(row)
    if not keys or all(len(trials) < 2 for trials in methods.values()):
        return None
    tuning = Tuning(keys)
    for trials in methods.values():
        tuning.methods.append(_tune(table, trials, keys))
    without = sum(not any(record.test for record in row.group.records) for row in rows)
    if without:
        tuning.notes.append(f"median, lowest and highest are without {without} trials that have no result")
    unknown = [method for method in tuning.methods if method.best is None]
    if unknown:
        tuning.notes.append(
            "no best trial where a record has no skill on validation, as under the legacy protocol: choosing on test "
            "would be an advantage of the method with more trials"
        )
    return tuning


def _is_swept(key: str, rows: Sequence[Row]) -> bool:
    """Return True if all values of a key are numbers or null, at least two of them different numbers."""
    values = [row.label[key] for row in rows if key in row.label]
    numbers = {value for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    return len(numbers) > 1 and all(value is None or value in numbers for value in values)


def _method(row: Row, keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in row.label.items() if key not in keys}


def _tune(table: ComparisonTable, trials: Sequence[Row], keys: Sequence[str]) -> TunedMethod:
    diverged = [row.group.states.get("diverged", 0) / len(row.group.runs) for row in trials]
    skills = {index: skill for index, row in enumerate(trials) if (skill := _validation(row)) is not None}
    # The mean of the runs that survived flatters a trial, so one with fewer that diverged comes first.
    least = min((diverged[index] for index in skills), default=0.0)
    skills = {index: skill for index, skill in skills.items() if diverged[index] == least}
    chosen = max(skills, key=lambda index: skills[index]) if skills and all(map(isfinite, skills.values())) else None
    best = None if chosen is None else trials[chosen]
    spreads = {}
    for column in table.metrics:
        means = [mean for row in trials if isfinite(mean := row.mean(column))]
        if means:
            of_best = nan if best is None else best.mean(column)
            spreads[column.key] = Spread(of_best, median(means), min(means), max(means))
    return TunedMethod(
        label=_method(trials[0], keys),
        trials=len(trials),
        best=None if best is None else {key: best.label[key] for key in keys if key in best.label},
        best_row="" if best is None else best.name,
        validation=nan if chosen is None else skills[chosen],
        spreads=spreads,
    )


def _validation(row: Row) -> float | None:
    """Return the mean skill on validation over tasks and repetitions.

    NaN if a run with a result has none; None if no run has a result: such a trial counts, and is never the best.
    """
    records = [record for record in row.group.records if record.test]
    skills = [[entry["selected"] for entry in record.skills.values()] for record in records]
    if not records:
        return None
    if any(not of_run or not all(map(isfinite, of_run)) for of_run in skills):
        return nan
    return fmean(fmean(of_run) for of_run in skills)
