"""Differences between two methods over repetitions, paired where these are shared."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import fmean, stdev
from typing import Literal, TypeVar

from mtlrun.comparison.statistics.intervals import (
    LEVEL,
    Interval,
    around,
    bootstrap_interval,
    standard_error,
)

Direction = Literal["max", "min"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """By how much one method is better than another.

    Args:
        gain: mean difference in the unit of the metric, positive where the first method is better.
        deviation: standard deviation of the paired differences; NaN where they are not paired, or there is only one.
        counts: number of values of either method; paired, both are the number of pairs.
        paired: whether the difference is over shared repetitions.
        p: of the two-sided test that there is no difference; None with fewer than two pairs, or values of a method.
        interval: by Student's t distribution; None where `p` is None, or all differences are equal.
        bootstrap: None where it was not asked for, and where there is none.
    """

    gain: float
    deviation: float
    counts: tuple[int, int]
    paired: bool
    p: float | None
    interval: Interval | None
    bootstrap: Interval | None = None


def compare(
    first: Mapping[Hashable, float],
    second: Mapping[Hashable, float],
    direction: Direction,
    *,
    level: float = LEVEL,
    test_to_train: float = 0.0,
    bootstrap: bool = False,
) -> Difference | None:
    """Return by how much the first method is better than the second; None if one of them has no value.

    With at least two shared repetitions only these count, by the paired t test: what a seed does to both methods, such
    as its order of batches, cancels. Otherwise all count, by Welch's test for independent samples.

    Where all paired differences are equal and not 0, t would be infinite, and no number of repetitions too small. The
    p value is then that of the sign test, 2^(1-n): it is certain only that all have one sign.

    Args:
        first, second: {repetition: value}.
        direction: of the metric.
        level: of the intervals.
        test_to_train: see `standard_error`.
        bootstrap: whether to find this interval, too, which takes some milliseconds.
    """
    one, other = _finite(first), _finite(second)
    if not one or not other:
        return None
    sign = 1.0 if direction == "max" else -1.0
    shared = pairs_of(one, other)
    if shared:
        gains = [sign * (one[repetition] - other[repetition]) for repetition in shared]
        return _paired(gains, level, test_to_train, bootstrap)
    better, worse = ([sign * value for value in values.values()] for values in (one, other))
    return _unpaired(better, worse, level, test_to_train, bootstrap)


def pairs_of(first: Collection[Key], second: Collection[Key]) -> list[Key]:
    """Return the repetitions on which two methods are paired: those that both have, or none if that is only one."""
    shared = [repetition for repetition in first if repetition in second]
    return shared if len(shared) >= 2 else []


def _finite(values: Mapping[Hashable, float]) -> dict[Hashable, float]:
    return {repetition: value for repetition, value in values.items() if isfinite(value)}


def _paired(gains: list[float], level: float, test_to_train: float, bootstrap: bool) -> Difference:
    count = len(gains)
    mean, deviation = fmean(gains), stdev(gains)
    if deviation <= 1e-12 * max(map(abs, gains)):  # rounding alone
        p = 1.0 if mean == 0 else 2.0 ** (1 - count)
        return Difference(mean, 0.0, (count, count), True, p, None)
    error = standard_error(gains, test_to_train)
    return Difference(
        gain=mean,
        deviation=deviation,
        counts=(count, count),
        paired=True,
        p=two_sided(mean / error, count - 1),
        interval=around(mean, error, count - 1, level),
        bootstrap=bootstrap_interval(gains, level=level) if bootstrap else None,
    )


def _unpaired(
    better: list[float], worse: list[float], level: float, test_to_train: float, bootstrap: bool
) -> Difference:
    gain = fmean(better) - fmean(worse)
    counts = len(better), len(worse)
    if min(counts) < 2:
        return Difference(gain, nan, counts, False, None, None)
    errors = [standard_error(values, test_to_train) ** 2 for values in (better, worse)]
    error = sqrt(sum(errors))
    if error <= 1e-12 * max(map(abs, better + worse)):  # no value of a method differs from its others
        return Difference(gain, nan, counts, False, 1.0 if gain == 0 else None, None)
    freedom = sum(errors) ** 2 / sum(square**2 / (count - 1) for square, count in zip(errors, counts, strict=True))
    return Difference(
        gain=gain,
        deviation=nan,
        counts=counts,
        paired=False,
        p=two_sided(gain / error, freedom),
        interval=around(gain, error, freedom, level),
        bootstrap=bootstrap_interval(better, worse, level=level) if bootstrap else None,
    )


def two_sided(t: float, freedom: float) -> float:
    """Return the p value of a t statistic."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))
