"""Columns of a table, such that every error can name column, row and value."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy

from mtlrun.config.suggest import suggest
from mtlrun.datasets.tables.reading.advice import explain_cell
from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.missing import MISSING
from mtlrun.datasets.tables.reading.notation import Notation, to_numbers
from mtlrun.errors import DataError, list_problems


@dataclass(frozen=True)
class Columns:
    """The cells of a table, by column.

    Args:
        path: of the file, for errors.
        cells: {column: its cells}, in the order of the file; rows are numbered from 0.
        numbers: the number of each row in the file, where the header of a CSV file is row 1.
        notation: of its numbers.
        missing_texts: `dataset.missing`, for advice.
        notes: what was left out or found out while it was read, a sentence each.
    """

    path: str
    cells: Mapping[str, Cells]
    numbers: Sequence[int]
    notation: Notation = field(default_factory=Notation)
    missing_texts: Sequence[str] = MISSING
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.cells)

    def where(self, column: str, row: int) -> str:
        """Return in words where a cell is."""
        return f"{self.file(row)}, column {column}, {Columns.name(self, row)}"

    def file(self, row: int) -> str:
        """Return the path of the file that a row comes from."""
        return self.path

    def name(self, row: int) -> str:
        """Return in words which row this is."""
        return f"row {self.numbers[row]}"

    def ids(self) -> Sequence[str | int]:
        """Return what names each row in the record if no column does."""
        return self.numbers

    def select(self, rows: numpy.ndarray) -> "Columns":
        """Return some of the rows."""
        if len(rows) == len(self) and (rows == numpy.arange(len(self))).all():
            return self
        cells = {name: column.take(rows) for name, column in self.cells.items()}
        return dataclasses.replace(self, cells=cells, numbers=[self.numbers[row] for row in rows])

    def require(self, column: str, purpose: str) -> None:
        """Raise DataError if there is no such column."""
        if column not in self.cells:
            advice = ""
            if len(self.cells) == 1 or numpy.isfinite(to_numbers(self.names)).any():
                advice = "; the first line must hold the names of the columns, with the same separator as the others"
            raise DataError(
                f"{self.path}: there is no column {column!r} for {purpose}; {suggest(column, self.cells, 'it has')}"
                f"{advice}"
            )

    def missing(self, column: str) -> numpy.ndarray:
        """Return a mask of the empty cells, bool [num_rows]."""
        return self.cells[column].missing

    def needs_cell(self, column: str, row: int, what: str) -> str:
        """Return in words that a cell is empty where every row needs one."""
        more = [text for text in self.missing_texts if text not in MISSING]
        counted = f", or holds what dataset.missing counts as empty ({', '.join(more)})" if more else ""
        return f"{self.where(column, row)}: the cell is empty{counted}; every row needs {what}"

    def texts(self, column: str) -> list[str | None]:
        """Return the cells as texts, None for an empty one."""
        texts: list[str | None] = self.cells[column].texts.tolist()
        return texts

    def order(self, column: str) -> list[str] | None:
        """Return the labels of a column in the order in which the file keeps them; None if it keeps none."""
        return self.cells[column].order

    def floats(self, column: str) -> numpy.ndarray:
        """Return the cells as numbers, float64 [num_rows], NaN for an empty one."""
        cells = self.cells[column]
        wrong = numpy.isinf(cells.numbers)
        if not cells.are_numbers:
            wrong |= numpy.isnan(cells.numbers) & ~cells.missing
        if wrong.any():
            rows = wrong.nonzero()[0].tolist()
            advice = explain_cell(column, cells, rows[0], self.notation, self.missing_texts)
            problems = [f"{self.where(column, row)}: {cells.texts[row]!r} is not a finite number" for row in rows]
            problems[0] += advice
            raise DataError(list_problems(problems, "cells cannot be used"))
        return cells.numbers

    def weights(self, column: str) -> numpy.ndarray:
        """Return the cells as weights of the rows, float64 [num_rows], >= 0."""
        self.require(column, "dataset.weight_column")
        values = self.floats(column)
        wrong = ~(values >= 0)
        if wrong.any():
            found = {
                row: "the cell is empty" if numpy.isnan(values[row]) else f"found {values[row]:g}"
                for row in wrong.nonzero()[0].tolist()
            }
            problems = [
                f"{self.where(column, row)}: a weight must be a number >= 0, {what}" for row, what in found.items()
            ]
            raise DataError(list_problems(problems, "cells cannot be used"))
        return values
