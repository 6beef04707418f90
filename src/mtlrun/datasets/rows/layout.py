"""Layout of a CSV file: its separator, its header and the number of cells in each row."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from mtlrun.datasets.rows.separators import find_separator
from mtlrun.errors import DataError

_OPEN: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# Cells of the first rows, by which the columns of numbers are told from those of texts.
_PROBED_CELLS = 50_000
_MOST_PROBED = 500
# Cells of the lines that are looked at together.
_BATCH_CELLS = 100_000


@dataclass(frozen=True)
class Layout:
    """The layout of a CSV file.

    Args:
        separator: a character, or a regular expression.
        header: names of the columns, without spaces around them; empty texts where there is none.
        num_rows: number of rows beneath the header, empty ones included.
        first_rows: the cells of some.
    """

    separator: str
    header: list[str]
    num_rows: int
    first_rows: list[list[str]]


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """Open a file, which is decompressed if its name ends in .gz, .bz2, .xz or .zip.

    Raises:
        DataError: it cannot be opened, or is an archive of several files.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise DataError(f"{path}: an archive must hold one file, found {len(names)}")
                with archive.open(names[0]) as file:
                    yield file
        else:
            with _OPEN.get(suffix, io.FileIO)(path) as file:
                yield io.BufferedReader(file) if isinstance(file, io.FileIO) else file
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: the file cannot be read: {error}") from error


def find_layout(path: str, separator: str | None, encoding: str) -> Layout:
    """Return the layout of a CSV file, and check the length of every row.

    Args:
        path: of the file.
        separator: between cells; None to find it from the first rows.
        encoding: of the file.

    Raises:
        DataError: a row has more or fewer cells than the header, or the file is not in this encoding.
    """
    try:
        with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
            start = list(islice(text, 20))
            if not "".join(start).strip():
                raise DataError(f"{path}: the file is empty")
            separator = find_separator(path, start, separator)
            return _scan(path, chain(start, text), separator)
    except UnicodeError as error:
        raise DataError(_describe_undecodable(path, encoding)) from error


def _scan(path: str, lines: Iterator[str], separator: str) -> Layout:
    records = _Records(path, lines, separator)
    header = records.next() or [""]
    right = len(header) - 1

    def check(most: int) -> Iterator[list[str]]:
        """Yield the next rows, after their lengths were checked."""
        for _ in range(most):
            cells = records.next()
            if cells is None:
                return
            _check_length(path, header, cells, separator, records.number)
            yield cells

    first_rows = list(check(min(_MOST_PROBED, max(3, _PROBED_CELLS // len(header)))))
    while batch := list(islice(lines, max(1, _BATCH_CELLS // len(header)))):
        # Where counting separators is enough, lines are not divided into cells, which takes several times as long.
        enough = records.plain and [line.count(separator) for line in batch].count(right) == len(batch)
        if enough and '"' not in "".join(batch):
            records.number += len(batch)
            continue
        records.lines = chain(batch, lines)
        for _ in check(len(batch)):  # each is of one line or more, so that none of the batch is left
            pass
        records.lines = lines
    return Layout(separator, [name.strip() for name in header], records.number - 1, first_rows)


def _check_length(path: str, header: Sequence[str], cells: Sequence[str], separator: str, number: int) -> None:
    """Raise DataError if a row has more or fewer cells than the header, as pandas would not where it is shorter.

    A row of empty cells may be shorter; it is left out later.
    """
    if len(cells) > len(header) or (len(cells) < len(header) and any(cell.strip() for cell in cells)):
        raise DataError(f"{path}, row {number}: {_describe_length(header, cells, separator, first=number == 2)}")


class _Records:
    """Rows of a file, divided into cells; a cell in quotes may go on in the next line.

    Args:
        path: of the file, for errors.
        lines: of the file.
        separator: a character, or a regular expression.
    """

    def __init__(self, path: str, lines: Iterator[str], separator: str) -> None:
        self._path, self.lines, self._separator = path, lines, separator
        #: True if the separator is a character.
        self.plain = len(separator) == 1
        #: The number of the last row.
        self.number = 0

    def next(self) -> list[str] | None:
        """Return the cells of the next row; None after the last."""
        line = next(self.lines, None)
        if line is None:
            return None
        self.number += 1
        if not self.plain:
            stripped = line.strip() if self._separator == r"\s+" else line.rstrip("\r\n")
            return [cell.strip('"') for cell in re.split(self._separator, stripped)]
        try:
            rows = csv.reader(chain([line], self.lines), delimiter=self._separator, skipinitialspace=True)
            return next(rows) or [""]
        except csv.Error as error:
            problem = f"row {self.number}: {error}; is a quote opened there and never closed?"
            raise DataError(
                f"{self._path}: not a readable CSV file with separator {self._separator!r}: {problem}"
            ) from error


def _describe_length(header: Sequence[str], cells: Sequence[str], separator: str, *, first: bool) -> str:
    found = f"found {len(cells)} cell{'s' * (len(cells) != 1)}, and the header names {len(header)} columns"
    if header[0].startswith("#") or cells[0].startswith("#"):
        return f"{found}; if a line that begins with # is a comment, delete it"
    if any("\n" in cell for cell in cells):
        return f"{found}; a quote that is opened there may not be closed"
    advice = f"{found}; an empty cell needs its separator, and a cell that holds {separator!r} needs quotes"
    if first and len(cells) == len(header) + 1:
        advice += "; if each row begins with its number or name, name that column in the header, as in id"
    return advice


def _describe_undecodable(path: str, encoding: str) -> str:
    """Return in words which line of a file is not in an encoding, and what it may be in."""
    if encoding not in ("utf-8", "utf-8-sig"):
        return f"{path}: the file is not in dataset.encoding={encoding}"
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                shown = line[max(0, error.start - 12) : error.start + 8].decode("latin-1").strip()
                return (
                    f"{path}, line {number}: {shown!r} is not UTF-8, in which CSV files are expected; if the text "
                    "reads well here, add dataset.encoding=latin-1, else name another, such as cp1250 or utf-16"
                )
    return f"{path}: the file is not UTF-8; name its encoding, as in dataset.encoding=latin-1"
