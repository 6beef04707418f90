"""Ids and weights of the rows of a table."""

from collections.abc import Mapping, Sequence

import numpy
import torch

from mtlrun.datasets.base import SampleWeights
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.errors import DataError


def identify(table: Columns, column: str | None) -> Sequence[str | int]:
    """Return the id of each row: its cell in `column`, where no two may be equal, or its number in the file."""
    if column is None:
        return table.ids()
    table.require(column, "dataset.id_column")
    seen: dict[str, int] = {}
    for row, cell in enumerate(table.texts(column)):
        if cell is None:
            raise DataError(table.needs_cell(column, row, "an id"))
        if cell in seen:
            raise DataError(f"{table.where(column, row)}: {cell!r} is the id of {table.name(seen[cell])} too")
        seen[cell] = row
    return list(seen)


def weigh_by_task(
    table: Columns, columns: str | Mapping[str, str] | None, train: numpy.ndarray
) -> SampleWeights | None:
    """Return the weights of the training rows, float32 [num_train], or {task: weights}; None without such columns.

    Args:
        table: has the columns.
        columns: that of the weights for all tasks, or {task: that of its weights}.
        train: positions of the training rows.
    """
    if columns is None or isinstance(columns, str):
        return None if columns is None else weigh(table, columns, train)
    return {task: weigh(table, column, train) for task, column in columns.items()}


def weigh(table: Columns, column: str, train: numpy.ndarray) -> torch.Tensor:
    """Return the weights of the training rows, float32 [num_train]."""
    weights = table.weights(column)[train]
    if not weights.any():
        raise DataError(f"{table.path}, column {column}: every weight of the training split is 0")
    return torch.from_numpy(weights).float()
