"""CSV files: numbers are read as numbers, and the texts of a column only where they are needed."""

import codecs
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy
import pandas

from mtlrun.datasets.tables.reading.cells import Cells, Texts
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.layout import UNCLOSED, check_lengths, find_layout, open_bytes
from mtlrun.datasets.tables.reading.missing import Missing
from mtlrun.datasets.tables.reading.notation import Notation
from mtlrun.datasets.tables.reading.separators import as_override
from mtlrun.errors import DataError

# Cells that are read at a time; their texts are in memory only so long.
_CHUNK_CELLS = 250_000
# The least number of rows of these, since each part costs time for each column.
_CHUNK_ROWS = 200


class CsvFile:
    """A CSV file.

    Args:
        path: of the file; decompressed if it ends in .gz, .bz2, .xz or .zip.
        separator: between cells; None to find it.
        encoding: of the file. A byte order mark is followed whatever it says.
        missing: cells that count as empty.
        notation: of its numbers.

    Raises:
        DataError: the file cannot be read, or a row is longer or shorter than the header.
    """

    def __init__(self, path: str, separator: str | None, encoding: str, missing: Missing, notation: Notation) -> None:
        self.path, self._missing, self._notation = path, missing, notation
        self._encoding = find_encoding(path, encoding)
        self.layout = find_layout(path, separator, self._encoding)
        self._header_found = separator is None and self.layout.separator != ","
        header = self.layout.header
        double = sorted({name for name in header if name and header.count(name) > 1}) if _repeats(header) else []
        if double:
            raise DataError(
                f"{path}: the header has the column {', '.join(map(repr, double))} twice; rename one, "
                "since columns are told apart by their names"
            )
        #: {column: its place in the file}.
        self._places = {name: place for place, name in enumerate(header) if name}
        self._kept: numpy.ndarray | None = None
        self._last_is_full = False

    def read(self, texts: Collection[str]) -> Columns:
        """Return the cells; those of the columns `texts` are read as texts even if they are numbers."""
        wanted = {self._places[name] for name in texts if name in self._places}
        numbers = [place for place in self._number_columns() if place not in wanted]
        try:
            try:
                columns = self._read(numbers)
            except _NotNumbersError:
                still = self._check_numbers(numbers)
                columns = self._read(still if len(still) < len(numbers) else [])
        except DataError:
            self._check_lengths()  # its message is clearer
            raise
        # pandas refuses longer rows, and fills up shorter ones with empty cells.
        if not self._last_is_full:
            self._check_lengths()
        return replace(columns, notes=self._notes())

    def _check_lengths(self) -> None:
        check_lengths(self.path, self.layout.separator, self._encoding)

    def _notes(self) -> list[str]:
        notes = []
        if self._header_found:
            notes.append(
                f"{self.path}: cells are separated by {self.layout.separator!r} ({as_override(self.layout.separator)})"
            )
        unnamed = [place + 1 for place, name in enumerate(self.layout.header) if not name]
        if unnamed:
            notes.append(
                f"{self.path}: without a name in the header, left out: column {', '.join(map(str, unnamed[:20]))}"
                f"{' ...' if len(unnamed) > 20 else ''}"
            )
        return notes

    def _number_columns(self) -> list[int]:
        """Return the columns that hold numbers in the first rows."""
        rows = [row for row in self.layout.first_rows if len(row) == len(self.layout.header)]
        cells = numpy.array(rows, dtype=object).reshape(len(rows), len(self.layout.header))
        wrong = set(self._wrong(cells).tolist())
        return [place for place in self._places.values() if place not in wrong]

    def _wrong(self, cells: Texts) -> numpy.ndarray:
        """Return the columns of an array of texts in which a cell is neither empty nor a number."""
        indices, labels = pandas.factorize(cells.ravel())
        stripped = [str(label).strip() for label in labels]
        plain = Notation(self._notation.decimal)
        wrong = numpy.isnan(plain.parse(stripped)) & ~self._missing.among(stripped)
        return numpy.flatnonzero(numpy.append(wrong, False)[indices].reshape(cells.shape).any(axis=0))

    def _check_numbers(self, columns: Sequence[int]) -> list[int]:
        """Return those of some columns that hold numbers in all rows."""
        left = list(columns)
        with self._chunks({}, columns) as chunks:
            for chunk in chunks:
                wrong = set(self._wrong(chunk[left].to_numpy()).tolist())
                left = [place for index, place in enumerate(left) if index not in wrong]
        return left

    def _read(self, numbers: Sequence[int]) -> Columns:
        """Read all columns, some of them as numbers."""
        as_numbers = set(numbers)
        texts = [place for place in self._places.values() if place not in as_numbers]
        values = numpy.empty((self.layout.expected_rows, len(numbers)), order="F")
        found: list[Texts] = []
        kept: list[numpy.ndarray] = []
        end = 0
        with self._chunks(dict.fromkeys(numbers, float), [*numbers, *texts]) as chunks:
            for chunk in chunks:
                part = chunk.to_numpy() if not texts else chunk[list(numbers)].to_numpy(dtype=float)
                self._missing.clear(part)
                cells = clean_texts(chunk[texts].to_numpy(dtype=object), self._missing)
                full = _have_cells(part, cells)
                kept.append(full)
                start, end = end, end + int(full.sum())
                if end > len(values):
                    values = _grow(values, start, 2 * end)
                values[start:end] = part if full.all() else part[full]
                found.append(cells if full.all() else cells[full])
        self._kept = numpy.concatenate(kept) if kept else numpy.zeros(0, dtype=bool)
        objects = numpy.concatenate(found) if len(found) > 1 else found[0] if found else numpy.empty((0, len(texts)))
        cells_of: dict[int, Cells] = {}
        for index, place in enumerate(numbers):
            cells_of[place] = Cells(self._notation, values=values[:end, index], load=self._loader(place))
        for index, place in enumerate(texts):
            cells_of[place] = Cells(self._notation, texts=objects[:, index])
        last = cells_of.get(len(self.layout.header) - 1)
        self._last_is_full = last is not None and not last.missing.any() and len(cells_of) == len(self.layout.header)
        rows = range(2, end + 2) if self._kept.all() else [int(row) + 2 for row in numpy.flatnonzero(self._kept)]
        return Columns(
            self.path, {name: cells_of[place] for name, place in self._places.items()}, rows, self._notation,
            sorted(self._missing.texts),
        )  # fmt: skip

    def _loader(self, place: int) -> Any:
        return lambda: self._load(place)

    def _load(self, place: int) -> Texts:
        """Return the texts of one column, read from the file once more."""
        with self._chunks({}, [place]) as chunks:
            found = [clean_texts(chunk.to_numpy(dtype=object), self._missing) for chunk in chunks]
        return numpy.concatenate(found)[self._kept, 0]

    @contextmanager
    def _chunks(self, numbers: Mapping[int, type], columns: Sequence[int]) -> Iterator[Iterator[Any]]:
        """Yield parts of the file as frames, whose columns are named by their places."""
        # One type for all is much faster, where there are many columns.
        dtypes: Any = defaultdict(lambda: numpy.dtype(object), numbers) if len(numbers) < len(columns) else float
        dtypes = dtypes if numbers else object
        separator, header = self.layout.separator, self.layout.header
        options: dict[str, Any] = {} if len(separator) == 1 or separator == r"\s+" else {"engine": "python"}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)
                with pandas.read_csv(
                    self.path, sep=separator, header=0, names=range(len(header)), dtype=dtypes,
                    usecols=sorted(columns) if len(columns) < len(header) else None,
                    index_col=False, encoding=self._encoding, skip_blank_lines=False, skipinitialspace=True,
                    keep_default_na=False, na_values=sorted(self._missing.texts), decimal=self._notation.decimal,
                    chunksize=max(_CHUNK_ROWS, _CHUNK_CELLS // len(header)), **options,
                ) as chunks:  # fmt: skip
                    yield chunks
        except (pandas.errors.ParserError, pandas.errors.ParserWarning, UnicodeError) as error:
            raise DataError(f"{self.path}: {_describe(error, separator)}") from error
        except ValueError as error:
            raise _NotNumbersError from error


def clean_texts(cells: Texts, missing: Missing) -> Texts:
    """Return texts without spaces around them, None for those that stand for an empty cell."""
    if cells.size == 0:
        return cells
    indices, labels = pandas.factorize(cells.ravel())
    stripped = numpy.empty(len(labels) + 1, dtype=object)
    stripped[:-1] = [str(label).strip() for label in labels]
    stripped[:-1][missing.among(stripped[:-1].tolist())] = None
    return stripped[indices].reshape(cells.shape)


def _describe(error: Exception, separator: str) -> str:
    """Return in words what pandas cannot read."""
    if match := re.search(r"EOF inside string starting at row (\d+)", str(error)):
        return f"row {int(match[1]) + 1}: {UNCLOSED}"
    return f"not a readable CSV file with separator {separator!r}: {error}".strip()


def _grow(values: numpy.ndarray, used: int, size: int) -> numpy.ndarray:
    grown = numpy.empty((size, values.shape[1]), order="F")
    grown[:used] = values[:used]
    return grown


def _have_cells(numbers: numpy.ndarray, texts: Texts) -> numpy.ndarray:
    """Return which rows have a cell that is not empty, bool [num_rows]."""
    full = numpy.zeros(len(numbers), dtype=bool)
    for column in numbers.T:
        full |= ~numpy.isnan(column)
        if full.all():
            return full
    full |= (texts != None).any(axis=1)  # noqa: E711
    return full


class _NotNumbersError(Exception):
    """A column that began with numbers goes on with something else."""


def _repeats(header: Sequence[str]) -> bool:
    return len(set(filter(None, header))) < sum(1 for name in header if name)


def check_encoding(encoding: str) -> str:
    """Return the name of an encoding in Python.

    Raises:
        ValueError: there is no such encoding, or it is none of texts.
    """
    try:
        bytes(4).decode(encoding)  # which refuses encodings of bytes, such as base64
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"encoding must name one that Python knows, such as utf-8 or latin-1, found {encoding!r}"
        ) from error


def find_encoding(path: str, encoding: str) -> str:
    """Return the encoding of a file: that of its byte order mark, else the given one.

    Raises:
        ValueError: there is no such encoding.
        DataError: the file is UTF-8, and another encoding is given, in which it would be garbled silently.
    """
    known = check_encoding(encoding)
    with open_bytes(path) as file:
        start = file.read(2**16)
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if known != "utf-8" and not start.isascii() and not known.startswith("utf"):
        try:
            codecs.getincrementaldecoder("utf-8")().decode(start)
        except UnicodeDecodeError:
            return known
        raise DataError(f"{path}: the file is UTF-8, and dataset.encoding={encoding} would garble it; leave it out")
    return known
