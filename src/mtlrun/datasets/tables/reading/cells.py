"""Cells of one column of a table: numbers, texts, or both."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy
import pandas

from mtlrun.datasets.tables.reading.notation import Notation

#: Texts as numpy keeps them, object [num_rows]: a str, or None for an empty cell.
Texts = Any


class Cells:
    """The cells of a column.

    Args:
        notation: of the numbers among the texts.
        values: float64 [num_rows], NaN for an empty cell, if every other cell is a number.
        texts: the cells as in the file, without spaces around them; see `Texts`.
        load: returns `texts`, for where they are seldom needed.
        order: the order in which the file keeps the texts, if it does; ordered categories of Parquet.
    """

    def __init__(
        self,
        notation: Notation,
        *,
        values: numpy.ndarray | None = None,
        texts: Texts = None,
        load: Callable[[], Texts] | None = None,
        order: Sequence[str] | None = None,
    ) -> None:
        self._notation, self._values, self._given, self._load = notation, values, texts, load
        self.order = None if order is None else list(order)

    def __len__(self) -> int:
        return len(self._values if self._values is not None else self.texts)

    @property
    def are_numbers(self) -> bool:
        """True if it is known, without looking at the texts, that all cells are numbers or empty."""
        return self._values is not None

    @cached_property
    def texts(self) -> Texts:
        """The cells as texts; see `Texts`."""
        if self._given is None:
            assert self._load is not None
            self._given = self._load()
        return self._given

    @cached_property
    def _factors(self) -> tuple[numpy.ndarray, list[str]]:
        indices, labels = pandas.factorize(self.texts)
        return numpy.asarray(indices), list(labels)

    @property
    def indices(self) -> numpy.ndarray:
        """For each cell its place in `labels`, -1 for an empty one, int64 [num_rows]."""
        return self._factors[0]

    @property
    def labels(self) -> list[str]:
        """The different texts, in the order in which they occur."""
        return self._factors[1]

    @cached_property
    def missing(self) -> numpy.ndarray:
        """A mask of the empty cells, bool [num_rows]."""
        mask: numpy.ndarray = numpy.isnan(self._values) if self._values is not None else self.indices < 0
        return mask

    @property
    def numbers(self) -> numpy.ndarray:
        """The cells as numbers, float64 [num_rows]; NaN for an empty one and for what is no number."""
        return self._values if self._values is not None else self._parsed

    @cached_property
    def _parsed(self) -> numpy.ndarray:
        return self.spread(self._notation.parse(self.labels))

    def spread(self, values: numpy.ndarray) -> numpy.ndarray:
        """Return a value for each cell from one for each of `labels`; NaN for an empty one."""
        spread: numpy.ndarray = numpy.append(values, numpy.nan)[self.indices]
        return spread

    def take(self, rows: numpy.ndarray) -> "Cells":
        """Return the cells of some rows."""
        return Cells(
            self._notation,
            values=None if self._values is None else self._values[rows],
            texts=None if self._given is None else self._given[rows],
            load=lambda: self.texts[rows],
            order=self.order,
        )

    @staticmethod
    def join(parts: Sequence["Cells"]) -> "Cells":
        """Return the cells of several tables below each other."""
        first = parts[0]
        same = all(part.order == first.order for part in parts)
        return Cells(
            first._notation,
            values=numpy.concatenate([part.numbers for part in parts]) if all(p.are_numbers for p in parts) else None,
            load=lambda: numpy.concatenate([part.texts for part in parts]),
            order=first.order if same else None,
        )
