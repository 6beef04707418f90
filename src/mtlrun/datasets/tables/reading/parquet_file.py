"""Parquet files: each type of column as numbers or as texts."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from mtlrun.datasets.tables.reading.cells import Cells, Texts
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.missing import Missing
from mtlrun.datasets.tables.reading.notation import Notation
from mtlrun.errors import DataError


def read_parquet(path: str, missing: Missing, notation: Notation) -> Columns:
    """Return the cells of a Parquet file, whose rows are numbered from 1.

    A named index of pandas is a column; one without a name is left out. Times with a zone are converted to UTC.

    Raises:
        DataError: pyarrow is not installed, or the file cannot be read.
    """
    with open_parquet(path) as file:
        table = file.read()
    names = check_names(path, table.column_names)
    cells = {
        name: ParquetColumn(path, name, column, missing, notation).cells()
        for name, column in zip(names, table.columns, strict=True)
        if not (name.startswith("__index_level_") and name.endswith("__"))
    }
    full = numpy.zeros(table.num_rows, dtype=bool)
    for column in cells.values():
        full |= ~column.missing
    numbers = range(1, table.num_rows + 1)
    return Columns(path, cells, numbers, notation, sorted(missing.texts)).select(numpy.flatnonzero(full))


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """Open a Parquet file; DataError if pyarrow is not installed, or what is read of the file cannot be."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet files needs pyarrow: pip install pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def check_names(path: str, names: Sequence[Any]) -> list[str]:
    """Return the names of columns as texts; DataError if two are the same."""
    names = [str(name) for name in names]
    double = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if double:
        raise DataError(f"{path}: the file has the column {', '.join(map(repr, double))} twice")
    return names


class ParquetColumn:
    """A column of a Parquet file."""

    def __init__(self, path: str, name: str, column: Any, missing: Missing, notation: Notation) -> None:
        self._path, self._name, self._column, self._missing, self._notation = path, name, column, missing, notation

    def cells(self) -> Cells:
        """Return the cells: numbers where the type has numbers, texts otherwise."""
        import pyarrow

        order = None
        if pyarrow.types.is_dictionary(self._column.type):
            if self._column.type.ordered and self._column.num_chunks:
                order = [str(label) for label in self._column.unify_dictionaries().chunk(0).dictionary.to_pylist()]
            self._column = self._column.cast(self._column.type.value_type)
        kind = self._column.type
        values = self._numbers(kind)
        if values is None:
            return Cells(self._notation, texts=self._texts(_writer(kind)), order=order)
        self._missing.clear(values)
        write = _write_number if pyarrow.types.is_floating(kind) else str
        return Cells(self._notation, values=values, load=lambda: self._texts(write), order=order)

    def _numbers(self, kind: Any) -> numpy.ndarray | None:
        import pyarrow

        types = pyarrow.types
        column, unit = self._column, 1.0
        if types.is_duration(kind):
            unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit] * 86400
            column = column.cast(pyarrow.int64())
        elif types.is_null(kind):
            return numpy.full(len(column), numpy.nan)
        elif types.is_float16(kind):
            column = column.cast(pyarrow.float32())
        elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
            return None
        values = column.cast(pyarrow.float64(), safe=False).to_numpy()
        return numpy.array(values, dtype=float) / unit

    def _texts(self, write: Callable[[Any], str]) -> Texts:
        try:
            cells = [None if cell is None else write(cell).strip() for cell in self._column.to_pylist()]
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}, column {self._name}: its bytes are no texts") from error
        labels = list({cell for cell in cells if cell is not None})
        absent = {label for label, mask in zip(labels, self._missing.among(labels), strict=True) if mask}
        texts = numpy.empty(len(cells), dtype=object)
        texts[:] = [None if cell in absent else cell for cell in cells]
        return texts


def _writer(kind: Any) -> Callable[[Any], str]:
    """Return the function that writes a cell of a type as text."""
    import pyarrow

    types = pyarrow.types
    if types.is_timestamp(kind):
        return _write_moment
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda cell: str(cell, "utf-8")
    if types.is_nested(kind):
        return lambda cell: json.dumps(cell, default=str)
    return str


def _write_number(cell: float) -> str:
    return str(int(cell)) if cell % 1 == 0 else repr(cell)  # 2, not 2.0


def _write_moment(cell: Any) -> str:
    text = str(cell)
    return text.removesuffix("+00:00").removesuffix(" 00:00:00")
