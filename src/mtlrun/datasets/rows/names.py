"""Ids and weights of the rows of a table."""

from collections.abc import Sequence

import numpy
import torch

from mtlrun.datasets.rows.columns import Columns
from mtlrun.errors import DataError


def identify(table: Columns, column: str | None) -> Sequence[str | int]:
    """Return the id of each row: its cell in `column`, where no two may be equal, or its number in the file."""
    if column is None:
        return table.ids()
    table.require(column, "dataset.id_column")
    seen: dict[str, int] = {}
    for row, cell in enumerate(table.texts(column)):
        if cell is None:
            raise DataError(f"{table.where(column, row)}: the cell is empty; every row needs an id")
        if cell in seen:
            raise DataError(f"{table.where(column, row)}: {cell!r} is the id of {table.name(seen[cell])} too")
        seen[cell] = row
    return list(seen)


def weigh(table: Columns, column: str | None, train: numpy.ndarray) -> torch.Tensor | None:
    """Return the weights of the training rows, float32 [num_train]; None without a column of weights."""
    if column is None:
        return None
    weights = table.weights(column)[train]
    if not weights.any():
        raise DataError(f"{table.path}, column {column}: every weight of the training split is 0")
    return torch.from_numpy(weights).float()
