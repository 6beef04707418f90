"""Files of predictions, CSV or Parquet: a line for each sample, written some lines at a time."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from mtlrun.runs.prediction_columns import Column, quote


class PredictionWriter(ABC):
    """A file of predictions that is being written.

    Args:
        file: to write to.
        leading: {name: whether its cells are whole numbers, else texts} of the columns that come first.
        columns: those of the predictions, for their types; {name: column}, in their order.
    """

    def __init__(self, file: BinaryIO, leading: Mapping[str, bool], columns: Mapping[str, Column]) -> None:
        self._file, self._leading, self._columns = file, dict(leading), dict(columns)

    @abstractmethod
    def write(self, leading: Sequence[Sequence[Any]], columns: Mapping[str, Column], start: int, stop: int) -> None:
        """Write some lines.

        Args:
            leading: the cells of the leading columns, of these lines.
            columns: {name: column}; the cells of one that is missing are empty.
            start, stop: the lines of the columns.
        """

    def close(self) -> None:
        """Write what is left to be written."""
        return


class CsvWriter(PredictionWriter):
    """A CSV file that is being written."""

    def __init__(self, file: BinaryIO, leading: Mapping[str, bool], columns: Mapping[str, Column]) -> None:
        super().__init__(file, leading, columns)
        file.write(",".join(map(quote, [*self._leading, *self._columns])).encode() + b"\n")

    def write(self, leading: Sequence[Sequence[Any]], columns: Mapping[str, Column], start: int, stop: int) -> None:
        first = [
            list(map(str, cells)) if whole else ["" if cell is None else quote(str(_plain(cell))) for cell in cells]
            for whole, cells in zip(self._leading.values(), leading, strict=True)
        ]
        empty = [""] * (stop - start)
        cells = [columns[name].written(start, stop) if name in columns else empty for name in self._columns]
        self._file.write("".join(f"{','.join(line)}\n" for line in zip(*first, *cells, strict=True)).encode())


class ParquetWriter(PredictionWriter):
    """A Parquet file that is being written."""

    def __init__(self, file: BinaryIO, leading: Mapping[str, bool], columns: Mapping[str, Column]) -> None:
        import pyarrow
        import pyarrow.parquet

        super().__init__(file, leading, columns)
        types = {name: pyarrow.int64() if whole else pyarrow.string() for name, whole in leading.items()}
        for name, column in columns.items():
            types[name] = pyarrow.string() if column.texts else pyarrow.from_numpy_dtype(column.values.dtype)
        self._schema = pyarrow.schema(list(types.items()))
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)

    def write(self, leading: Sequence[Sequence[Any]], columns: Mapping[str, Column], start: int, stop: int) -> None:
        import pyarrow

        first = [
            cells if whole else [None if cell is None else str(_plain(cell)) for cell in cells]
            for whole, cells in zip(self._leading.values(), leading, strict=True)
        ]
        empty = [None] * (stop - start)
        cells = [columns[name].cells(start, stop) if name in columns else empty for name in self._columns]
        arrays = map(pyarrow.array, [*first, *cells], self._schema.types)
        self._writer.write_batch(pyarrow.record_batch(list(arrays), schema=self._schema))

    def close(self) -> None:
        self._writer.close()


WRITERS: dict[str, type[PredictionWriter]] = {"csv": CsvWriter, "parquet": ParquetWriter}


def _plain(sample: Any) -> str | int | float:
    """Return the id of a sample as a text or a number; lists, such as pairs of files, are written as JSON."""
    return sample if isinstance(sample, str | int | float) else json.dumps(sample)
