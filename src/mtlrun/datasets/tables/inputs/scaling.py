"""Scaling of numbers by the statistics of the training split: to standard deviations, robustly, or by quantiles."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy
import torch

Scale = Literal["standard", "robust", "quantile"]
#: Most knots of the curve that scales a column by quantiles; between two, a number is wrong by .04 at most.
KNOTS = 256
#: Where robustly scaled numbers are cut off smoothly.
BOUND = 3.0
_HUGE = 1e100  # beyond it, squares are not finite


class Scaling(ABC):
    """The scaling of columns, fitted to some columns after the other. An empty cell is NaN and stays it."""

    def __init__(self) -> None:
        #: For each column whether it is constant in training: it is 0 everywhere.
        self.constant: list[bool] = []

    @abstractmethod
    def fit(self, values: numpy.ndarray) -> None:
        """Add columns: the numbers of the training split, float64 [num_columns, num_train]; they are overwritten."""

    @abstractmethod
    def apply(self, values: numpy.ndarray) -> None:
        """Scale numbers of all columns, float64 [num_columns, num_samples], in place."""

    @abstractmethod
    def learned(self, index: int) -> dict[str, Any]:
        """Return what scales a column, as plain data."""

    @classmethod
    @abstractmethod
    def restore(cls, learned: Sequence[Mapping[str, Any]]) -> Self:
        """Return the scaling of columns, to be applied, by what `learned` returned of each."""


class Standard(Scaling):
    """(x - mean) / standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self._means, self._stds = numpy.empty(0), numpy.empty(0)

    def fit(self, values: numpy.ndarray) -> None:
        # Compare the extremes, since the standard deviation of equal numbers need not be zero after rounding.
        same = numpy.fmin.reduce(values, axis=1) == numpy.fmax.reduce(values, axis=1)
        absent = numpy.isnan(values)
        marked = bool(absent.any())
        counts = values.shape[1] - absent.sum(axis=1)
        if marked:
            values[absent] = 0
        means = values.sum(axis=1) / counts
        values -= means[:, None]
        if marked:
            values[absent] = 0
        numpy.square(values, out=values)
        stds = numpy.where(same, 0.0, numpy.sqrt(values.sum(axis=1) / counts))
        self._means, self._stds = numpy.append(self._means, means), numpy.append(self._stds, stds)
        self.constant += same.tolist()

    def apply(self, values: numpy.ndarray) -> None:
        values -= self._means[:, None]
        values /= numpy.where(self._stds == 0, numpy.inf, self._stds)[:, None]

    def learned(self, index: int) -> dict[str, Any]:
        return {"mean": float(self._means[index]), "std": float(self._stds[index])}

    @classmethod
    def restore(cls, learned: Sequence[Mapping[str, Any]]) -> Self:
        scaling = cls()
        scaling._means = numpy.array([column["mean"] for column in learned], dtype=float)
        scaling._stds = numpy.array([column["std"] for column in learned], dtype=float)
        return scaling


class Robust(Scaling):
    """f((x - median) / spread), where f(z) = z / sqrt(1 + (z / 3)^2) is nearly z near 0, and between -3 and 3.

    Source: Holzmueller, Grinsztajn & Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular
    Data" (NeurIPS 2024). The spread is the interquartile range, or where that is 0 half the distance of the extremes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._medians: list[float] = []
        self._spreads: list[float] = []

    def fit(self, values: numpy.ndarray) -> None:
        for column in values:
            low, first, median, third, high = numpy.quantile(column[~numpy.isnan(column)], (0, 0.25, 0.5, 0.75, 1))
            self._medians.append(float(median))
            self._spreads.append(float(third - first or (high - low) / 2))
            self.constant.append(bool(low == high))

    def apply(self, values: numpy.ndarray) -> None:
        spreads = numpy.array(self._spreads)
        values -= numpy.array(self._medians)[:, None]
        values /= numpy.where(spreads == 0, numpy.inf, spreads)[:, None]
        values.clip(-_HUGE, _HUGE, out=values)
        values /= numpy.sqrt(1 + numpy.square(values / BOUND))

    def learned(self, index: int) -> dict[str, Any]:
        return {"median": self._medians[index], "spread": self._spreads[index]}

    @classmethod
    def restore(cls, learned: Sequence[Mapping[str, Any]]) -> Self:
        scaling = cls()
        scaling._medians = [column["median"] for column in learned]
        scaling._spreads = [column["spread"] for column in learned]
        return scaling


class Quantile(Scaling):
    """The number of a normal distribution at the same quantile; linear between knots, and constant outside of them.

    The quantile of a number of training is its rank among the n of them, counted from 1/2, divided by n; equal numbers
    share their mean rank. With more than `KNOTS` different numbers, knots are equally far from each other on the normal
    side.
    """

    def __init__(self) -> None:
        super().__init__()
        self._knots: list[tuple[numpy.ndarray, numpy.ndarray]] = []

    def fit(self, values: numpy.ndarray) -> None:
        for column in values:
            numbers, counts = numpy.unique(column[~numpy.isnan(column)], return_counts=True)
            levels = (counts.cumsum() - counts / 2) / counts.sum()
            normals = torch.special.ndtri(torch.from_numpy(levels)).numpy()
            if len(numbers) > KNOTS:
                chosen = numpy.searchsorted(normals, numpy.linspace(normals[0], normals[-1], KNOTS))
                chosen = numpy.unique(chosen)
                numbers, normals = numbers[chosen], normals[chosen]
            self._knots.append((numbers, normals))
            self.constant.append(len(numbers) == 1)

    def apply(self, values: numpy.ndarray) -> None:
        for column, (numbers, normals) in zip(values, self._knots, strict=True):
            column[:] = numpy.interp(column, numbers, normals)

    def learned(self, index: int) -> dict[str, Any]:
        numbers, normals = self._knots[index]
        return {"numbers": numbers.tolist(), "normals": normals.tolist()}

    @classmethod
    def restore(cls, learned: Sequence[Mapping[str, Any]]) -> Self:
        scaling = cls()
        scaling._knots = [(numpy.array(column["numbers"]), numpy.array(column["normals"])) for column in learned]
        return scaling


SCALINGS: dict[Scale, type[Scaling]] = {"standard": Standard, "robust": Robust, "quantile": Quantile}
