"""Encoding of rows as inputs: one set of functions for the rows of a run and for those that come later."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.tables.inputs.categories import match_categories
from mtlrun.datasets.tables.inputs.scaling import SCALINGS, Scaling
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.dates import to_days


def fill_numbers(
    tile: numpy.ndarray, values: numpy.ndarray, scaling: Scaling, places: slice | Sequence[int],
    marks: Sequence[int], marked: numpy.ndarray,
) -> None:  # fmt: skip
    """Write the features of numbers and dates: each scaled, 0 where the cell is empty, and marks of empty cells.

    Args:
        tile: float32 [num_rows, num_features], written to.
        values: float64 [num_columns, num_rows], NaN where a cell is empty; overwritten.
        scaling: of these columns.
        places: the features of the columns.
        marks: the features that mark empty cells.
        marked: which columns have such a mark, [num_columns].
    """
    scaling.apply(values)
    absent = numpy.isnan(values)
    values[absent] = 0
    tile[:, places] = values.T
    if marks:
        tile[:, marks] = absent[marked].T


def fill_one_hot(tile: numpy.ndarray, indices: numpy.ndarray, start: int, count: int) -> None:
    """Write the features of texts, one for each of `count` categories; all are 0 where the index is -1."""
    tile[:, start : start + count] = indices[:, None] == numpy.arange(count)


def fill_index(tile: numpy.ndarray, indices: numpy.ndarray, place: int) -> None:
    """Write the feature of texts whose categories are embedded: 1 for the first, 0 where the index is -1."""
    tile[:, place] = indices + 1


@dataclass
class Surprises:
    """What rows have that training did not: counted over all rows that were encoded.

    Args:
        unseen: {column: rows whose text is none of the categories}.
        empty: {column: rows whose cell is empty, where no cell of training was}.
    """

    unseen: dict[str, int] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Numbers:
    """Adjacent columns of numbers or dates."""

    columns: Sequence[str]
    formats: Sequence[str | None]
    scaling: Scaling
    marked: numpy.ndarray
    places: Sequence[int]
    marks: Sequence[int]


@dataclass(frozen=True)
class _Texts:
    """A column of texts."""

    column: str
    labels: Sequence[str | int | None]
    buckets: int | None
    start: int


class RowEncoder:
    """Encoder of further rows as those of a run's table, by what the run learned from it.

    Args:
        learned: as `learned_of_inputs` returns it.

    Raises:
        KeyError, TypeError, ValueError: it is no such thing.
    """

    def __init__(self, learned: Mapping[str, Any]) -> None:
        columns: Mapping[str, Mapping[str, Any]] = learned["columns"]
        self._one_hot = learned["category_encoding"] == "one_hot"
        scale = SCALINGS[learned["scale"]]
        self._parts: list[_Numbers | _Texts] = []
        #: The columns that are needed, in the order of their features.
        self.columns = list(columns)
        #: Those that are read as texts, also where they are numbers.
        self.texts = [column for column, entry in columns.items() if entry["kind"] != "number"]
        self.surprises = Surprises()
        start = 0
        for are_texts, group in groupby(columns, lambda column: columns[column]["kind"] == "text"):
            if are_texts:
                for column in group:
                    labels = columns[column]["categories"]
                    self._parts.append(_Texts(column, labels, columns[column].get("buckets"), start))
                    start += len(labels) if self._one_hot else 1
                continue
            names = list(group)
            entries = [columns[column] for column in names]
            places, marks = [], []
            for entry in entries:
                places.append(start)
                if entry["marks_empty"]:
                    marks.append(start + 1)
                start += 1 + entry["marks_empty"]
            marked = numpy.array([entry["marks_empty"] for entry in entries], dtype=bool)
            formats = [entry.get("format") for entry in entries]
            self._parts.append(_Numbers(names, formats, scale.restore(entries), marked, places, marks))
        self.num_features = start
        if start != len(learned["features"]):
            raise ValueError(f"{len(learned['features'])} features are named, and there are {start}")

    def parse(self, table: Columns, wrong: Mapping[int, str] | None = None) -> "ParsedRows":
        """Return the rows of a table, ready to be encoded; those that cannot be are found and named.

        Args:
            table: with the columns that are needed.
            wrong: {row: what is wrong with it} of rows that are known to be of no use.
        """
        found = dict(wrong or {})
        parsed: list[numpy.ndarray] = []
        unseen: dict[str, numpy.ndarray] = {}
        empty: dict[str, numpy.ndarray] = {}
        for part in self._parts:
            if isinstance(part, _Texts):
                indices, unseen[part.column] = match_categories(table.cells[part.column], part.labels, part.buckets)
                parsed.append(indices)
                continue
            values = numpy.empty((len(part.columns), len(table)))
            for index, (column, format) in enumerate(zip(part.columns, part.formats, strict=True)):
                values[index] = self._numbers(table, column, format, found)
                if not part.marked[index]:
                    empty[column] = table.cells[column].missing
            parsed.append(values)
        rows = ParsedRows(self, len(table), parsed, found)
        for counts, masks in ((self.surprises.unseen, unseen), (self.surprises.empty, empty)):
            for column, mask in masks.items():
                if mask.any() and (number := int(mask[rows.readable].sum())):
                    counts[column] = counts.get(column, 0) + number
        return rows

    def fill(self, tile: numpy.ndarray, parsed: Sequence[numpy.ndarray], rows: numpy.ndarray) -> None:
        """Write the features of some rows; see `ParsedRows`."""
        for part, values in zip(self._parts, parsed, strict=True):
            if isinstance(part, _Numbers):
                fill_numbers(tile, values[:, rows], part.scaling, part.places, part.marks, part.marked)
            elif self._one_hot:
                fill_one_hot(tile, values[rows], part.start, len(part.labels))
            else:
                fill_index(tile, values[rows], part.start)

    def _numbers(self, table: Columns, column: str, format: str | None, wrong: dict[int, str]) -> numpy.ndarray:
        """Return the cells of a column as numbers; the first problem of each row is added to `wrong`."""
        cells = table.cells[column]
        if format is None:
            values = cells.numbers
            bad = numpy.isinf(values)
            if not cells.are_numbers:
                bad = bad | (numpy.isnan(values) & ~cells.missing)
            what = "not a finite number"
        else:
            values = cells.spread(to_days(cells.labels, format))
            bad = numpy.isnan(values) & ~cells.missing
            what = f"no date in the format {format!r}, as those of training are"
        for row in numpy.flatnonzero(bad).tolist():
            wrong.setdefault(row, f"column {column}: {cells.texts[row]!r} is {what}")
        return values


class ParsedRows:
    """Rows whose cells were read, ready to be encoded some at a time.

    Args:
        encoder: that parsed them.
        num_rows: how many there are.
        parsed: the numbers, or the indices of categories, of each of its parts.
        wrong: {row: what of it cannot be read}.
    """

    def __init__(
        self, encoder: RowEncoder, num_rows: int, parsed: Sequence[numpy.ndarray], wrong: dict[int, str]
    ) -> None:
        self._encoder, self._num_rows, self._parsed, self.wrong = encoder, num_rows, parsed, wrong

    @property
    def readable(self) -> numpy.ndarray:
        """The rows that can be encoded, int64."""
        mask = numpy.ones(self._num_rows, dtype=bool)
        mask[list(self.wrong)] = False
        return numpy.flatnonzero(mask)

    def encode(self, rows: numpy.ndarray) -> Tensor:
        """Return the inputs of some rows, float32 [num_rows, num_features]."""
        tile = numpy.empty((len(rows), self._encoder.num_features), dtype=numpy.float32)
        self._encoder.fill(tile, self._parsed, rows)
        return torch.from_numpy(tile)

    def batches(self, size: int) -> Iterator[tuple[numpy.ndarray, Tensor]]:
        """Yield (rows, inputs) of at most `size` rows that can be encoded."""
        readable = self.readable
        for start in range(0, len(readable), size):
            rows = readable[start : start + size]
            yield rows, self.encode(rows)
