"""The description of inputs that are vectors: what each of their numbers means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy
from torch import Tensor

from mtlrun.config.checks import check_one_of

ColumnKind = Literal["number", "indicator", "category"]
_MOST_CATEGORIES = 2**24
_FEWEST_BINS, _MOST_BINS = 4, 48


@dataclass(frozen=True, eq=False)
class InputColumn:
    """One of the numbers of an input vector.

    Args:
        name: as in the data, such as `area`, `city=Ulm` or `area is empty`.
        kind: `number`, a quantity; `indicator`, 0 or 1; `category`, the index of one of `num_categories` categories.
        num_categories: indices are 0 to num_categories - 1, at most 2^24, since inputs are float32; 0 for other kinds.
        values: the numbers of the training samples, [num_train], for networks that need their quantiles; None if they
            are not known.

    Raises:
        ValueError: the kind is unknown, or does not fit the number of categories.
    """

    name: str
    kind: ColumnKind = "number"
    num_categories: int = 0
    values: Tensor | None = field(default=None, repr=False)
    _quantiles: dict[int | None, tuple[float, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_one_of("kind", self.kind, ColumnKind)
        if (self.kind == "category") != (self.num_categories > 0):
            raise ValueError(
                f"num_categories must be > 0 for a category and 0 otherwise, found {self.num_categories} for "
                f"{self.name!r}, kind {self.kind}"
            )
        if self.num_categories > _MOST_CATEGORIES:
            raise ValueError(
                f"num_categories must be at most {_MOST_CATEGORIES}, found {self.num_categories} for {self.name!r}"
            )

    def quantiles(self, num_bins: int | None) -> tuple[float, ...] | None:
        """Return the quantiles 0, 1/num_bins, ..., 1 of the training values, each number once, in ascending order.

        A column that is constant in training has one; None if the values are not known.

        Args:
            num_bins: None for the square root of the number of training values, from 4 to 48.
        """
        if num_bins not in self._quantiles:  # a network is made several times, for each task or to find its width
            if self.values is None:
                return None
            values = self.values.detach().cpu().double().numpy()
            bins = min(max(round(len(values) ** 0.5), _FEWEST_BINS), _MOST_BINS) if num_bins is None else num_bins
            # Quantiles between two values could be apart by rounding only.
            edges = numpy.unique(numpy.quantile(values, numpy.linspace(0, 1, bins + 1), method="nearest"))
            self._quantiles[num_bins] = tuple(edges.tolist())
        return self._quantiles[num_bins]

    def as_plain(self) -> dict[str, Any]:
        """Return the column as plain data, with the quantiles that networks have asked for in place of the values."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.num_categories:
            plain["num_categories"] = self.num_categories
        if self._quantiles:
            plain["quantiles"] = [[num_bins, list(edges)] for num_bins, edges in self._quantiles.items()]
        return plain

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "InputColumn":
        """Return the column that `as_plain` describes."""
        column = InputColumn(plain["name"], plain["kind"], plain.get("num_categories", 0))
        column._quantiles.update({num_bins: tuple(edges) for num_bins, edges in plain.get("quantiles", ())})
        return column


def categories_in(columns: Sequence[InputColumn] | None) -> list[str]:
    """Return the names of the columns that are indices of categories."""
    return [column.name for column in columns or () if column.kind == "category"]
