"""How predicted numbers go with the targets, of many resamples: the coefficient of determination, rank correlation."""

import numpy

from mtlrun.tasks.resampling.base import GroupSums, ResampledMetrics, Values, divide, numbers

_NOTHING = 1e-10  # of a sum of squares: what rounding leaves of the deviations of equal numbers


def determination(prediction: Values, target: Values) -> ResampledMetrics:
    """Return `r2`, of several numbers the mean over those that vary; NaN if there is none.

    Args:
        prediction: [n] or [n, num_outputs].
        target: of the same shape.
    """
    truth, found = (numbers(values).reshape(len(values), -1) for values in (target, prediction))
    errors = numpy.square(truth - found)
    centered = truth - truth.mean(axis=0)
    num_outputs = truth.shape[1]
    columns = numpy.concatenate([errors, centered, numpy.square(centered)], axis=1)

    def metric(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        sums = (counts @ columns).reshape(len(counts), 3, num_outputs)
        error, total, squares = sums[:, 0], sums[:, 1], sums[:, 2]
        deviations = squares - total**2 / counts.sum(axis=1, keepdims=True)
        deviations[deviations <= _NOTHING * squares] = 0
        values = 1 - divide(error, deviations)
        defined = ~numpy.isnan(values)
        of_defined = numpy.where(defined, values, 0).sum(axis=1)
        return {"r2": divide(of_defined, defined.sum(axis=1).astype(numpy.float64))}

    return metric


def rank_correlation(prediction: Values, target: Values) -> ResampledMetrics:
    """Return `spearman`, both arguments [n]; NaN if all targets are the same number, 0 if all predictions are."""
    predicted, true = _Ranks(numbers(prediction)), _Ranks(numbers(target))

    def metric(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        first, of_first = predicted(counts)
        second, of_second = true(counts)
        covariance = numpy.einsum("bi,bi,bi->b", counts, first, second)
        correlation = numpy.nan_to_num(divide(covariance, numpy.sqrt(of_first * of_second)), nan=0.0)
        return {"spearman": numpy.where(of_second > 0, correlation, numpy.nan)}

    return metric


class _Ranks:
    """The ranks of numbers, [n], of which equal ones have their mean rank."""

    def __init__(self, values: numpy.ndarray) -> None:
        different, place = numpy.unique(values, return_inverse=True)
        self._place = place.reshape(-1)
        self._sums = GroupSums(self._place, len(different))

    def __call__(self, counts: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return the ranks minus their mean, [B, n], and the sum of their squares, [B]."""
        equal = self._sums(counts)
        ranks = equal.cumsum(axis=1) - equal / 2 - counts.sum(axis=1, keepdims=True) / 2
        return ranks.take(self._place, axis=1), numpy.einsum("bi,bi,bi->b", equal, ranks, ranks)
