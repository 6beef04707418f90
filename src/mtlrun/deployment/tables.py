"""New rows of a table, encoded as those of a run: from a CSV or Parquet file of any size, or a DataFrame."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from mtlrun.config.suggest import suggest
from mtlrun.datasets.tables.inputs.encoding import RowEncoder
from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.source import Source
from mtlrun.datasets.tables.reading.stream import open_stream
from mtlrun.deployment.inputs import InputReader, Samples
from mtlrun.errors import DataError

# The keys of a dataset that say how its file is read.
_READING = ("missing", "separator", "encoding", "decimal", "thousands")
# Names that a line lists.
_LISTED = 8
# Numbers of a batch at most, so that wide tables need no more memory than narrow ones.
_MOST_NUMBERS = 2**24


def source_of(dataset: Mapping[str, Any]) -> Source:
    """Return how files like those of a run are read, by the node `dataset` of its config."""
    return Source.from_keys("", "path", **{key: dataset[key] for key in _READING if key in dataset})


class TableEncoder:
    """The encoder of rows as those of a run's table.

    Args:
        learned: the section `inputs` of the run's `learned.json`.
        dataset: the node `dataset` of its config, for the notation of numbers, empty cells and the column of ids.
    """

    def __init__(self, learned: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
        self.rows = RowEncoder(learned)
        self.source = source_of(dataset)
        self.id_column: str | None = dataset.get("id_column")

    def require(self, names: Sequence[str], where: str) -> None:
        """Raise DataError if columns are missing.

        Args:
            names: of the columns that there are.
            where: the file, for the message.
        """
        absent = [column for column in self.rows.columns if column not in names]
        if len(absent) == 1:
            raise DataError(f"{where}: there is no column {absent[0]!r}; {suggest(absent[0], names, 'it has')}")
        if absent:
            near = suggest(absent[0], names, "it has")
            listing = ", ".join(map(repr, absent[:_LISTED])) + (", ..." if len(absent) > _LISTED else "")
            raise DataError(f"{where}: {len(absent)} columns are missing, {listing}; for {absent[0]!r}: {near}")

    def encode(self, frame: Any) -> tuple[Tensor, dict[int, str]]:
        """Return the rows of a pandas DataFrame as inputs of the model, and what is wrong with those that are left out.

        Args:
            frame: with the columns that are needed, whatever else it has.

        Returns:
            Inputs of the rows that can be read, in their order, float32 [num_readable, num_features]; and {position of
            a row: what of it cannot be read}.

        Raises:
            DataError: a column is missing.
        """
        self.require([str(name) for name in frame.columns], "the frame")
        parsed = self.rows.parse(self._columns_of(frame))
        return parsed.encode(parsed.readable), parsed.wrong

    def notes(self) -> list[str]:
        """Return sentences on what was unlike the rows of training in those that were encoded so far."""
        unseen, empty = self.rows.surprises.unseen, self.rows.surprises.empty
        lines = []
        if unseen:
            lines.append(f"texts that are no category of training count as none: {_list(_counts(unseen))}")
        if empty:
            found = _list(_counts(empty))
            lines.append(f"empty cells where training had none count as the middle of the column: {found}")
        return lines

    def _columns_of(self, frame: Any) -> Columns:
        """Return the columns of a frame that are needed."""
        from mtlrun.datasets.tables.reading.missing import Missing
        from mtlrun.datasets.tables.reading.values import cells_of_values

        missing = Missing(self.source.missing)
        cells: dict[str, Cells] = {}
        for name in frame.columns:
            if str(name) in self.rows.columns:
                cells[str(name)] = cells_of_values(frame[name], missing, self.source.notation)
        return Columns("the frame", cells, range(len(frame)), self.source.notation, self.source.missing)


class TableReader(InputReader):
    """The rows of a file.

    Args:
        path: of a CSV or Parquet file.
        encoder: of its rows.

    Raises:
        DataError: there is no such file, or a column is missing.
    """

    def __init__(self, path: str, encoder: TableEncoder) -> None:
        self._encoder, self._stream = encoder, open_stream(path, encoder.source)
        encoder.require(self._stream.names, path)
        self._id_column = encoder.id_column if encoder.id_column in self._stream.names else None
        self.ids_are_numbers = self._id_column is None

    def read(self, batch_size: int) -> Iterator[Samples]:
        rows, id_column = self._encoder.rows, self._id_column
        size = max(1, min(batch_size, _MOST_NUMBERS // rows.num_features))
        columns = list(dict.fromkeys([*rows.columns, *([id_column] if id_column else [])]))
        texts = [*rows.texts, *([id_column] if id_column else [])]
        for block in self._stream.blocks(columns, texts):
            table = block.table
            parsed = rows.parse(table, block.wrong)
            ids: Sequence[str | int] = table.numbers
            if id_column:
                names = table.texts(id_column)
                ids = [str(table.numbers[row]) if name is None else name for row, name in enumerate(names)]
            wrong = {row: f"row {table.numbers[row]}, {problem}" for row, problem in sorted(parsed.wrong.items())}
            yield Samples(ids, parsed.batches(size), wrong)

    def notes(self) -> list[str]:
        columns = self._encoder.rows.columns
        ignored = [name for name in self._stream.names if name not in columns and name != self._id_column]
        lines = [f"columns that are no inputs of this run, and are ignored: {_list(ignored)}"] if ignored else []
        return lines + self._encoder.notes()


def _counts(rows: Mapping[str, int]) -> list[str]:
    return [f"{column} ({count:,} row{'s' * (count != 1)})" for column, count in rows.items()]


def _list(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
