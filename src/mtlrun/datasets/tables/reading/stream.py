"""Tables that are read some rows at a time, such that each row is accounted for, whether it can be read or not."""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, TextIO

import numpy
import pandas

from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.csv_file import clean_texts, find_encoding
from mtlrun.datasets.tables.reading.layout import Records, count_plain_lines, open_records, open_text
from mtlrun.datasets.tables.reading.missing import Missing
from mtlrun.datasets.tables.reading.parquet_file import ParquetColumn, check_names, open_parquet
from mtlrun.datasets.tables.reading.read import is_parquet, tab_of
from mtlrun.datasets.tables.reading.source import Source
from mtlrun.errors import DataError

_EMPTY = "the row is empty"


@dataclass(frozen=True)
class Block:
    """Some rows of a table.

    Args:
        table: their cells, of the columns that were asked for; those of a row in `wrong` are empty.
        wrong: {row: what is wrong with it}, by the position in the block.
    """

    table: Columns
    wrong: dict[int, str] = field(default_factory=dict)


class RowStream(ABC):
    """The rows of a file, one block of them after the other.

    Args:
        path: of the file.
        names: of its columns.
        source: how it is read.
    """

    def __init__(self, path: str, names: Sequence[str], source: Source) -> None:
        self.path, self.names = path, list(names)
        self._missing, self._notation = Missing(source.missing), source.notation

    @abstractmethod
    def blocks(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[Block]:
        """Yield the cells of some columns.

        Args:
            columns: which the file has.
            texts: those of them that are needed as texts even if they are numbers.

        Raises:
            DataError: the file cannot be read any further.
        """

    def _block(self, cells: dict[str, Cells], numbers: Sequence[int], wrong: dict[int, str] | None = None) -> Block:
        table = Columns(self.path, cells, numbers, self._notation, sorted(self._missing.texts))
        return Block(table, wrong or {})


def open_stream(path: str, source: Source) -> RowStream:
    """Return the rows of a CSV or Parquet file.

    Args:
        path: of the file.
        source: how it is read; its files are not looked at.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    return ParquetStream(path, source) if is_parquet(path) else CsvStream(path, source)


class CsvStream(RowStream):
    """The rows of a CSV file. A row of another length than the header's is wrong, and so is an empty one.

    Blank lines at the end are no rows.
    """

    #: Characters that are read at a time.
    block_size: ClassVar[int] = 2**22

    def __init__(self, path: str, source: Source) -> None:
        self._encoding = find_encoding(path, source.encoding)
        with open_text(path, self._encoding) as text:
            _, records = open_records(path, text, source.separator or tab_of(path))
            self._header = [name.strip() for name in records.header()]
        self._separator = records.separator
        super().__init__(path, [name for name in self._header if name], source)

    def blocks(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[Block]:
        for column in columns:
            if self._header.count(column) > 1:
                raise DataError(f"{self.path}: the header has the column {column!r} twice; rename one")
        places = {column: self._header.index(column) for column in columns}
        with open_text(self.path, self._encoding) as text:
            records = Records(self.path, text, self._separator)
            records.header()
            blank = 0  # lines that are rows only if another row follows
            while part := text.read(self.block_size) + text.readline():
                block = self._read_plain(part, places, set(texts), records) if not blank else None
                if block is None:
                    block, blank = self._read_row_by_row(part, text, places, records, blank)
                if len(block.table):
                    yield block

    def _read_plain(self, part: str, places: dict[str, int], texts: Collection[str], records: Records) -> Block | None:
        """Return the rows of lines each of which is plainly a row, by pandas; None if some are not."""
        num_lines = count_plain_lines(part, self._separator, len(self._header))
        if num_lines is None or re.search(rf"^[ \t{re.escape(self._separator)}]*\r?$", part.rstrip("\n"), re.MULTILINE):
            return None
        numbers = [column for column in places if column not in texts]
        frame: Any = None
        if numbers:
            frame = self._read_frame(part, places, numbers)
        if frame is None:
            numbers = []
            frame = self._read_frame(part, places, ())
        if frame is None or len(frame) != num_lines:
            return None
        cells = {}
        for column, place in places.items():
            if column in numbers:
                values = frame[place].to_numpy(dtype=float, copy=True)
                self._missing.clear(values)
                cells[column] = Cells(self._notation, values=values)
            else:
                cells[column] = Cells(self._notation, texts=clean_texts(frame[place].to_numpy(object), self._missing))
        first = records.number + 1
        records.number += num_lines
        return self._block(cells, range(first, first + num_lines))

    def _read_frame(self, part: str, places: dict[str, int], numbers: Collection[str]) -> Any:
        """Return the columns of a part as a frame, whose columns are named by their places; None if that fails."""
        types: Any = {place: float if column in numbers else object for column, place in places.items()}
        try:
            return pandas.read_csv(
                io.StringIO(part), sep=self._separator, header=None, names=range(len(self._header)),
                usecols=sorted(places.values()), dtype=types, index_col=False, skip_blank_lines=False,
                skipinitialspace=True, keep_default_na=False, na_values=sorted(self._missing.texts),
                decimal=self._notation.decimal,
            )  # fmt: skip
        except ValueError:  # some cell is no number, or pandas takes the lines for other ones
            return None

    def _read_row_by_row(
        self, part: str, text: TextIO, places: dict[str, int], records: Records, blank: int
    ) -> tuple[Block, int]:
        """Return the rows of a part, and how many blank lines it ends with, which may be rows.

        Args:
            part: lines of the file; the last row may go on in the lines of `text`.
            text: the rest of the file.
            places: of the columns.
            records: divide it into rows.
            blank: number of blank lines before it.
        """
        lines = list(io.StringIO(part, newline=""))
        records.lines = chain(lines, text)
        numbers: list[int] = []
        rows: list[list[str | None]] = []
        wrong: dict[int, str] = {}
        nothing: list[str | None] = [None] * len(places)
        for cells, problem in records.rows_with_problems(len(lines)):
            if len(cells) == 1 and len(self._header) > 1 and not cells[0].strip():
                blank += 1
                continue
            for number in range(records.number - blank, records.number):
                wrong[len(rows)] = _EMPTY
                rows.append(nothing)
                numbers.append(number)
            blank = 0
            if problem and any("\n" in cell for cell in cells):
                # Where a quote is not closed, nobody knows which of the lines to come are rows.
                raise DataError(f"{self.path}, row {records.number}: {problem}")
            if not problem and not any(cell.strip() for cell in cells):
                problem = _EMPTY
            if problem:
                wrong[len(rows)] = problem
            rows.append(nothing if problem else [cells[place] for place in places.values()])
            numbers.append(records.number)
        array = numpy.empty((len(rows), len(places)), dtype=object)
        for index, row in enumerate(rows):
            array[index] = row
        array = clean_texts(array, self._missing)
        cells_of = {column: Cells(self._notation, texts=array[:, index]) for index, column in enumerate(places)}
        return self._block(cells_of, numbers, wrong), blank


class ParquetStream(RowStream):
    """The rows of a Parquet file."""

    #: Rows that are read at a time, and cells at most.
    block_rows: ClassVar[int] = 2**16
    block_cells: ClassVar[int] = 2**22

    def __init__(self, path: str, source: Source) -> None:
        with open_parquet(path) as file:
            names = check_names(path, file.schema_arrow.names)
        super().__init__(path, names, source)

    def blocks(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[Block]:
        end = 0
        size = max(1, min(self.block_rows, self.block_cells // max(1, len(columns))))
        with open_parquet(self.path) as file:
            import pyarrow

            for batch in file.iter_batches(batch_size=size, columns=list(columns)):
                table = pyarrow.Table.from_batches([batch])
                start, end = end, end + table.num_rows
                cells = {
                    column: ParquetColumn(
                        self.path, column, table.column(column), self._missing, self._notation
                    ).cells()
                    for column in columns
                }
                yield self._block(cells, range(start + 1, end + 1))
