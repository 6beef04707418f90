"""The type of metrics of resamples, and functions that all families use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy

if TYPE_CHECKING:
    from torch import Tensor

#: A tensor, or an array in its place.
Values: TypeAlias = "Tensor | numpy.ndarray"

#: How often each of n samples occurs in each of B resamples, float64 [B, n], to {metric: values [B]}.
ResampledMetrics = Callable[[numpy.ndarray], dict[str, numpy.ndarray]]


def join(*parts: ResampledMetrics) -> ResampledMetrics:
    """Return the metrics of several functions as one."""

    def joined(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        return {name: values for part in parts for name, values in part(counts).items()}

    return joined


def numbers(values: Values) -> numpy.ndarray:
    """Return a tensor, or an array, as a float64 array."""
    if isinstance(values, numpy.ndarray):
        return values.astype(numpy.float64)
    array: numpy.ndarray = values.detach().cpu().double().numpy()
    return array


def divide(numerator: numpy.ndarray, denominator: numpy.ndarray) -> numpy.ndarray:
    """Return the quotient, NaN where the denominator is 0."""
    quotient = numpy.full_like(numerator, numpy.nan)
    numpy.divide(numerator, denominator, out=quotient, where=numpy.asarray(denominator != 0))
    return quotient


class GroupSums:
    """Sums over the samples of each group, from [B, n] to [B, num_groups].

    Args:
        groups: the group of each sample by number, int64 [n].
        num_groups: number of groups; some may be without samples.
    """

    def __init__(self, groups: numpy.ndarray, num_groups: int) -> None:
        self._order = groups.argsort(kind="stable")
        self._present, self._starts = numpy.unique(groups[self._order], return_index=True)
        self._num_groups = num_groups

    def __call__(self, counts: numpy.ndarray) -> numpy.ndarray:
        sums = numpy.zeros((len(counts), self._num_groups))
        if len(self._order):
            sorted_counts = counts.take(self._order, axis=1)
            if len(self._starts) < len(self._order):
                sorted_counts = numpy.add.reduceat(sorted_counts, self._starts, axis=1)
            sums[:, self._present] = sorted_counts
        return sums
