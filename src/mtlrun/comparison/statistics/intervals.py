"""Confidence intervals of a mean over repetitions, by Student's t and by the bootstrap."""

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

#: The level of all intervals.
LEVEL = 0.95
RESAMPLES = 9999
SEED = 0


class Interval(NamedTuple):
    """The bounds of a confidence interval."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Return True if all of the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


def standard_error(values: Sequence[float], test_to_train: float = 0.0) -> float:
    """Return the standard error of the mean of at least two values.

    Training sets of a cross-validation overlap, so the values of its folds are not independent, and s / sqrt(n) is too
    small. Nadeau & Bengio, "Inference for the Generalization Error" (Machine Learning 2003), use
    s sqrt(1/n + n_test/n_train) instead.

    Args:
        values: one per repetition.
        test_to_train: n_test / n_train, 1 / (k - 1) for the folds of a k-fold cross-validation; 0 for independent
            repetitions.
    """
    return stdev(values) * sqrt(1 / len(values) + test_to_train)


def t_interval(values: Sequence[float], level: float = LEVEL, test_to_train: float = 0.0) -> Interval | None:
    """Return the interval of a mean by Student's t distribution.

    None for fewer than two values, or equal ones, which say nothing of others.

    Args:
        values: one per repetition.
        level: of confidence.
        test_to_train: see `standard_error`.
    """
    if len(set(values)) < 2:
        return None
    return around(fmean(values), standard_error(values, test_to_train), len(values) - 1, level)


def around(center: float, error: float, freedom: float, level: float = LEVEL) -> Interval:
    """Return the interval by Student's t distribution around an estimate with a standard error."""
    reach = _t_quantile(freedom, (1 + level) / 2) * error
    return Interval(center - reach, center + reach)


@lru_cache(maxsize=1024)
def _t_quantile(freedom: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def bootstrap_interval(*samples: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return the bootstrap interval of a mean, or of the difference of the means of two independent samples.

    It is `scipy.stats.bootstrap` with bias correction and acceleration (BCa), which also corrects for skewness, unlike
    the percentile interval. With few repetitions either is too narrow, so it stands beside the t interval and does not
    replace it. None if a sample has fewer than two values, or all are equal.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), section 14.3.
    """
    if any(len(values) < 2 for values in samples) or all(len(set(values)) == 1 for values in samples):
        return None
    import numpy
    from scipy.stats import bootstrap

    def statistic(*drawn: "numpy.ndarray", axis: int) -> "numpy.ndarray":
        first, *second = (values.mean(axis=axis) for values in drawn)
        difference: numpy.ndarray = first - second[0] if second else first
        return difference

    generator = numpy.random.default_rng(SEED)
    found = bootstrap(samples, statistic, n_resamples=RESAMPLES, confidence_level=level, method="BCa", rng=generator)
    low, high = (float(bound) for bound in found.confidence_interval)
    return Interval(low, high) if low <= high else None
