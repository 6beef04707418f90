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
from typing import IO, Any, TextIO

import numpy

from mtlrun.datasets.tables.reading.separators import find_separator
from mtlrun.errors import DataError

_OPEN: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# Cells of the first rows, by which the columns of numbers are told from those of texts.
_PROBED_CELLS = 50_000
_MOST_PROBED = 500
# Lines by which the separator is found.
_FIRST_LINES = 20
#: What is wrong with a row in which a cell in quotes does not end.
UNCLOSED = "a quote is opened there and never closed; close it, or remove it"
# Characters of the lines that are looked at together.
_BLOCK = 2**19


@dataclass(frozen=True)
class Layout:
    """The layout of a CSV file.

    Args:
        separator: a character, or a regular expression.
        header: names of the columns, without spaces around them; empty texts where there is none.
        first_rows: the cells of some rows beneath the header.
        expected_rows: about how many rows there are, or a few more; less if the file is compressed.
    """

    separator: str
    header: list[str]
    first_rows: list[list[str]]
    expected_rows: int


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
    """Return the layout of a CSV file.

    Args:
        path: of the file.
        separator: between cells; None to find it from the first rows.
        encoding: of the file.

    Raises:
        DataError: one of the first rows has more or fewer cells than the header, or is not in this encoding.
    """
    with open_text(path, encoding) as text:
        start, records = open_records(path, text, separator)
        header, separator = records.header(), records.separator
        first_rows = list(records.rows(min(_MOST_PROBED, max(3, _PROBED_CELLS // len(header)))))
    length = sum(map(len, start)) / len(start)
    expected_rows = 100 + int(1.1 * Path(path).stat().st_size / length)
    return Layout(separator, [name.strip() for name in header], first_rows, expected_rows)


def open_records(path: str, text: TextIO, separator: str | None) -> tuple[list[str], "Records"]:
    """Return the first lines of a CSV file, and all of its rows.

    Raises:
        DataError: it is empty, or its separator cannot be found.
    """
    start = list(islice(text, _FIRST_LINES))
    if not "".join(start).strip():
        raise DataError(f"{path}: the file is empty")
    return start, Records(path, chain(start, text), find_separator(path, start, separator))


def check_lengths(path: str, separator: str, encoding: str) -> None:
    """Check the length of every row of a CSV file.

    Raises:
        DataError: a row has more or fewer cells than the header, or is not in this encoding.
    """
    with open_text(path, encoding) as text:
        records = Records(path, text, separator)
        header = records.header()
        while block := text.read(_BLOCK) + text.readline():
            num_lines = count_plain_lines(block, separator, len(header))
            if num_lines is not None:
                records.number += num_lines
                continue
            lines = list(io.StringIO(block, newline=""))
            records.lines = chain(lines, text)
            for _ in records.rows(len(lines)):  # each takes one line or more, so that none is left
                pass


@contextmanager
def open_text(path: str, encoding: str) -> Iterator[TextIO]:
    """Open a file as text; DataError if what is read of it is not in this encoding."""
    try:
        with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
            yield text
    except UnicodeError as error:
        raise DataError(_describe_undecodable(path, encoding)) from error


def count_plain_lines(block: str, separator: str, columns: int) -> int | None:
    """Return the number of lines if each is plainly a row of so many cells; None if lines must be divided to see it.

    Counting takes a fraction of the time of dividing, and of that of pandas, which reads the numbers.
    """
    if len(separator) != 1 or not separator.isascii() or '"' in block or block.count("\r") != block.count("\r\n"):
        return None
    codes = numpy.frombuffer((block if block.endswith("\n") else block + "\n").encode(), dtype=numpy.uint8)
    marks = codes[(codes == ord(separator)) | (codes == ord("\n"))]
    lines = marks.size // columns
    ends = marks == ord("\n")
    return (
        lines if marks.size == lines * columns == columns * ends.sum() and ends[columns - 1 :: columns].all() else None
    )


class Records:
    """Rows of a file, divided into cells; a cell in quotes may go on in the next line.

    Args:
        path: of the file, for errors.
        lines: of the file.
        separator: a character, or a regular expression.
    """

    def __init__(self, path: str, lines: Iterator[str], separator: str) -> None:
        self._path, self.lines, self.separator = path, lines, separator
        #: True if the separator is a character.
        self.plain = len(separator) == 1
        #: The number of the last row.
        self.number = 0
        self._header: list[str] = []

    def header(self) -> list[str]:
        """Return the cells of the first row, with which the others are compared."""
        self._header = self._next() or [""]
        return self._header

    def rows(self, most: int) -> Iterator[list[str]]:
        """Yield the next rows, and raise DataError if one has more or fewer cells than the header.

        A row of empty cells may have fewer; it is left out later.
        """
        for cells, problem in self.rows_with_problems(most):
            if problem:
                raise DataError(f"{self._path}, row {self.number}: {problem}")
            yield cells

    def rows_with_problems(self, most: int) -> Iterator[tuple[list[str], str]]:
        """Yield the next rows, each with what is wrong with its number of cells, "" if nothing is."""
        for cells in islice(iter(self._next, None), most):
            excess = len(cells) - len(self._header)
            problem = ""
            if excess > 0 or (excess < 0 and any(cell.strip() for cell in cells)):
                problem = _describe_length(self._header, cells, self.separator, first=self.number == 2)
            yield cells, problem

    def _next(self) -> list[str] | None:
        """Return the cells of the next row; None after the last."""
        line = next(self.lines, None)
        if line is None:
            return None
        self.number += 1
        if not self.plain:
            stripped = line.strip() if self.separator == r"\s+" else line.rstrip("\r\n")
            return [cell.strip('"') for cell in re.split(self.separator, stripped)]
        lines = [line]
        try:
            rows = csv.reader(self._row_lines(lines), delimiter=self.separator, skipinitialspace=True)
            cells = next(rows) or [""]
        except csv.Error as error:
            problem = f"row {self.number}: {error}; is a quote opened there and never closed?"
            raise DataError(
                f"{self._path}: not a readable CSV file with separator {self.separator!r}: {problem}"
            ) from error
        fits = len(cells) == len(self._header)  # else that is what is said of it
        if fits and "\n" in cells[-1] and "".join(lines).count('"') % 2 and self._is_at_end():
            raise DataError(f"{self._path}: row {self.number}: {UNCLOSED}")
        return cells

    def _row_lines(self, lines: list[str]) -> Iterator[str]:
        """Yield the first line of a row and those after it, which are added to `lines` as they are read."""
        yield lines[0]
        for line in self.lines:
            lines.append(line)
            yield line

    def _is_at_end(self) -> bool:
        line = next(self.lines, None)
        if line is not None:
            self.lines = chain([line], self.lines)
        return line is None


def _describe_length(header: Sequence[str], cells: Sequence[str], separator: str, *, first: bool) -> str:
    counts = (f"{len(names)} {what}{'s' * (len(names) != 1)}" for names, what in ((cells, "cell"), (header, "column")))
    found = "found {}, and the header names {}".format(*counts)
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
