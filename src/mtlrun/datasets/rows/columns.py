"""Columns of a table, read from a file so that every error can name column, row and value."""

import csv
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas

from mtlrun.config.suggest import suggest
from mtlrun.errors import DataError

MISSING = ("", "NA", "NaN", "nan", "null")


@dataclass(frozen=True)
class Columns:
    """The cells of a table, by column.

    Args:
        path: of the file, for errors.
        frame: the cells; rows are numbered from 0. Those of a CSV file are the unchanged texts.
        numbers: the number of each row in the file, where the header of a CSV file is row 1.
    """

    path: str
    frame: Any
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, column: str, row: int) -> str:
        """Return in words where a cell is."""
        return f"{self.file(row)}, column {column}, {Columns.name(self, row)}"

    def file(self, row: int) -> str:
        """Return the path of the file that a row comes from."""
        return self.path

    def name(self, row: int) -> str:
        """Return in words which row this is."""
        return f"row {self.numbers[row]}"

    def id(self, row: int) -> str | int:
        """Return what names a row in the record if no column does."""
        return self.numbers[row]

    def select(self, rows: numpy.ndarray) -> "Columns":
        """Return some of the rows."""
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return dataclasses.replace(self, frame=frame, numbers=[self.numbers[row] for row in rows])

    def require(self, column: str, purpose: str) -> None:
        """Raise DataError if there is no such column."""
        if column not in self.frame.columns:
            raise DataError(
                f"{self.path}: there is no column {column!r} for {purpose}; "
                f"{suggest(column, self.frame.columns, 'it has')}"
            )

    def missing(self, column: str) -> numpy.ndarray:
        """Return a mask of the empty cells, bool [num_rows]."""
        mask: numpy.ndarray = self.frame[column].isna().to_numpy()
        return mask

    def texts(self, column: str) -> list[str | None]:
        """Return the cells as texts, None for an empty one."""
        cells = self.frame[column]
        if pandas.api.types.is_float_dtype(cells) and (cells.dropna() % 1 == 0).all():
            cells = cells.astype("Int64")  # whole numbers with gaps: 2, not 2.0
        return [None if absent else str(cell) for cell, absent in zip(cells, self.missing(column), strict=True)]

    def is_text(self, column: str) -> bool:
        """Return True if the column does not hold numbers.

        Raises:
            DataError: most cells are numbers, so that the others are probably mistakes.
        """
        values = self._parse(column)
        wrong = numpy.isnan(values) & ~self.missing(column)
        if wrong.any() and not numpy.isnan(values).mean() > 0.5:
            row = int(wrong.argmax())
            raise DataError(
                f"{self.where(column, row)}: {self.frame[column][row]!r} is not a number, as most of the column is; "
                f"if it stands for an empty cell, add it to dataset.missing; if the column names categories, add it to "
                f"dataset.categorical"
            )
        return bool(wrong.any())

    def floats(self, column: str) -> numpy.ndarray:
        """Return the cells as numbers, float64 [num_rows], NaN for an empty one."""
        values = self._parse(column)
        wrong = (numpy.isnan(values) & ~self.missing(column)) | numpy.isinf(values)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{self.where(column, row)}: {self.frame[column][row]!r} is not a finite number")
        return values

    def weights(self, column: str) -> numpy.ndarray:
        """Return the cells as weights of the rows, float64 [num_rows], >= 0."""
        self.require(column, "dataset.weight_column")
        values = self.floats(column)
        wrong = ~(values >= 0)
        if wrong.any():
            row = int(wrong.argmax())
            found = "the cell is empty" if numpy.isnan(values[row]) else f"found {values[row]:g}"
            raise DataError(f"{self.where(column, row)}: a weight must be a number >= 0, {found}")
        return values

    def _parse(self, column: str) -> numpy.ndarray:
        cells = self.frame[column]
        if not pandas.api.types.is_numeric_dtype(cells) or pandas.api.types.is_bool_dtype(cells):
            cells = cells.map(str, na_action="ignore").astype(object)
        values: numpy.ndarray = pandas.to_numeric(cells, errors="coerce").to_numpy(dtype=float, na_value=numpy.nan)
        return values


def read(path: str, separator: str = ",", missing: Sequence[str] = MISSING) -> Columns:
    """Read a CSV file, or a Parquet file if its name ends in .parquet or .pq. Rows of empty cells are left out.

    Raises:
        DataError: the file is missing, or cannot be read.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such file, as seen from {Path.cwd()}; name a CSV or Parquet file")
    if Path(path).suffix.lower() in (".parquet", ".pq"):
        frame, first = _read_parquet(path, missing), 1
    else:
        frame, first = _read_csv(path, separator, missing), 2
    frame.columns = [str(name) for name in frame.columns]
    frame = frame.dropna(how="all")
    if len(frame) == 0:
        raise DataError(f"{path}: there are no rows beneath the header")
    return Columns(path, frame.reset_index(drop=True), [first + int(row) for row in frame.index])


def _read_csv(path: str, separator: str, missing: Sequence[str]) -> Any:
    # Cells stay texts, and empty lines stay rows until later, so that errors can quote the file.
    options: Mapping[str, Any] = {
        "sep": separator, "dtype": str, "encoding": "utf-8-sig", "skip_blank_lines": False, "skipinitialspace": True,
    }  # fmt: skip
    try:
        _check_lengths(path, separator)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            header = pandas.read_csv(path, header=None, nrows=1, keep_default_na=False, **options).iloc[0].tolist()
            double = [name for name in header if header.count(name) > 1]
            if double:
                raise DataError(f"{path}: the header has the column {double[0]!r} twice")
            return pandas.read_csv(path, index_col=False, keep_default_na=False, na_values=list(missing), **options)
    except pandas.errors.EmptyDataError as error:
        raise DataError(f"{path}: the file is empty") from error
    except (pandas.errors.ParserError, pandas.errors.ParserWarning, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable CSV file with separator {separator!r}: {error}".strip()) from error


def _check_lengths(path: str, separator: str) -> None:
    """Raise DataError if a row has more or fewer cells than the header; pandas would silently fill up short rows."""
    if len(separator) != 1:
        return  # a regular expression, which pandas supports and csv does not
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        try:
            columns = len(next(rows, []))
            for number, cells in enumerate(rows, start=2):
                if columns and len(cells) != columns and any(cell.strip() for cell in cells):
                    raise DataError(
                        f"{path}, row {number}: found {len(cells)} cells, and the header names {columns} columns; an "
                        f"empty cell needs its separator, and a cell that holds {separator!r} needs quotes"
                    )
        except csv.Error:
            return  # pandas reports what is wrong


def _read_parquet(path: str, missing: Sequence[str]) -> Any:
    try:
        frame = pandas.read_parquet(path).reset_index(drop=True)
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet files needs pyarrow: pip install pyarrow") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error
    for name in frame.columns:
        if not pandas.api.types.is_numeric_dtype(frame[name]):
            cells = frame[name].astype(object)
            frame[name] = cells.mask(cells.isin(list(missing)))
    return frame
