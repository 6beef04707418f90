"""The Deltas of a method against single-task networks, and mean ranks: one number for all tasks and metrics."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from statistics import fmean, stdev


def relative_gain(value: float, baseline: float, direction: str) -> float:
    """Return by how many percent of the baseline a value is better, negative if it is worse.

    The change is relative to the baseline's size, so that a negative baseline, as of R2, does not turn its sign. NaN
    if one of them is not finite, or the baseline is 0.
    """
    if not (isfinite(value) and isfinite(baseline)) or baseline == 0:
        return nan
    change = 100 * (value - baseline) / abs(baseline)
    return change if direction == "max" else -change


def is_near_zero(baseline: Sequence[float]) -> bool:
    """Return True if the mean of a baseline is smaller than its standard deviation: gains relative to it mean little.

    Args:
        baseline: one value per repetition, as of R2 or of a correlation.
    """
    finite = [value for value in baseline if isfinite(value)]
    return len(finite) > 1 and abs(fmean(finite)) < stdev(finite)


def delta_m(gains: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over all METRICS of the relative change for the worse, in percent: lower is better.

    Maninis et al. (CVPR 2019), as Nash-MTL (ICML 2022) and FAMO (NeurIPS 2023) report it. NaN if any gain is.

    Args:
        gains: {task: the `relative_gain` of each of its metrics}.
    """
    every = [gain for of_task in gains.values() for gain in of_task]
    return -fmean(every) if every else nan


def delta_p(gains: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over TASKS of the mean relative gain of their metrics, in percent: higher is better.

    LibMTL (JMLR 2023) and DB-MTL report it. It is `-delta_m` only where all tasks have as many metrics. NaN if any
    gain is.

    Args:
        gains: {task: the `relative_gain` of each of its metrics}.
    """
    return fmean(fmean(of_task) for of_task in gains.values()) if gains else nan


def ranks(values: Sequence[float], direction: str) -> list[float]:
    """Return the rank of each value, 1 for the best; equal values share the mean of their ranks, NaN has none.

    Args:
        values: of one metric.
        direction: "max" or "min".
    """
    sign = -1 if direction == "max" else 1
    order = sorted((index for index, value in enumerate(values) if value == value), key=lambda i: sign * values[i])
    found = [nan] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            found[index] = (start + 1 + end) / 2
        start = end
    return found


def mean_ranks(rows: Sequence[Sequence[float]], directions: Sequence[str]) -> list[float]:
    """Return the mean over the columns of the rank of each row; NaN for a row that lacks one, which is not ranked.

    Args:
        rows: a value per column, NaN for none.
        directions: of the columns.
    """
    whole = [index for index, row in enumerate(rows) if row and all(value == value for value in row)]
    columns = [
        ranks([rows[index][column] for index in whole], direction) for column, direction in enumerate(directions)
    ]
    means = [nan] * len(rows)
    for place, index in enumerate(whole):
        means[index] = fmean(column[place] for column in columns)
    return means
