"""csv: a table of your own, CSV or Parquet; see docs/your_data.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import SplitName, TensorCache, TensorSplit
from mtlrun.datasets.rows.columns import Columns
from mtlrun.datasets.rows.label_table import LabelTable
from mtlrun.datasets.rows.words import ColumnName, column_names
from mtlrun.errors import DataError


class Table(LabelTable):
    """Rows of a CSV or Parquet file: some columns are the input, others the targets of tasks.

    Inputs are [num_features] float32. All statistics are those of the training split: numbers are standardized (a
    column that is constant there is 0 everywhere), and an empty cell becomes the mean; if the column has empty cells in
    training, one more feature marks them. Texts are one-hot, with the categories of training in sorted order; an empty
    cell is a category if training has one, and a category that training does not have is all zeros.

    Args:
        path: CSV, or Parquet if it ends in .parquet or .pq, which needs pyarrow; or a file for each split, {train: ...,
            test: ...}, val optional.
        inputs: columns; None for all that are no target and not the column of splits, groups, times, ids or weights.
        categorical: columns of numbers that are to be treated as texts.
        max_categories: the most different texts that a column of the inputs may have.
        cache: `memory`, or `device`: the inputs lie on the GPU.
        **rows: targets, splits, ids and weights: see `LabelTable`.
    """

    def __init__(
        self,
        path: str | Mapping[str, str] | None,
        inputs: Sequence[ColumnName] | None = None,
        categorical: Sequence[ColumnName] = (),
        max_categories: int = 100,
        cache: TensorCache = "memory",
        **rows: Any,
    ) -> None:
        if path is None:
            raise ValueError("path must name a CSV or Parquet file, as in dataset.path=houses.csv, found null")
        if max_categories < 1:
            raise ValueError(f"max_categories must be >= 1, found {max_categories}")
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        super().__init__(path, **rows)
        chosen = None if inputs is None else column_names(inputs, "inputs")
        columns = choose_inputs(self.table, chosen, self.target_columns, self.row_columns)
        texts = column_names(categorical, "categorical")
        for column in texts:
            if column not in columns:
                raise DataError(f"dataset.categorical: {column!r} is none of the inputs: {', '.join(columns)}")
        features = [
            _one_hot(self.table, column, self.rows["train"], max_categories)
            if column in texts or self.table.is_text(column)
            else _standardize(self.table, column, self.rows["train"])
            for column in columns
        ]
        #: The meaning of each number of an input: a column, `column=category`, or `column is empty`.
        self.features = [name for names, _ in features for name in names]
        self._inputs = torch.from_numpy(numpy.concatenate([values for _, values in features], axis=1)).float()
        self.input_shape = (len(self.features),)

    def split(self, name: SplitName) -> TensorSplit:
        return TensorSplit(self._inputs[torch.from_numpy(self.rows[name])], **self.labels(name))


def choose_inputs(table: Columns, inputs: Sequence[str] | None, targets: set[str], row_columns: set[str]) -> list[str]:
    """Return the columns that are the input; none of them may be a target."""
    if inputs is None:
        inputs = [column for column in table.frame.columns if column not in targets | row_columns]
    for column in inputs:
        table.require(column, "dataset.inputs")
        if column in targets:
            raise DataError(f"dataset.inputs: {column!r} is what a task is to predict; it cannot be an input as well")
    if not inputs:
        raise DataError(f"{table.path}: no column is left for the inputs")
    return list(dict.fromkeys(inputs))


def _standardize(table: Columns, column: str, train: numpy.ndarray) -> tuple[list[str], numpy.ndarray]:
    values = table.floats(column)
    absent = numpy.isnan(values)
    known = values[train][~absent[train]]
    if not len(known):
        raise DataError(f"{table.path}, column {column}: every cell of the training split is empty; do not use it")
    # Compare the extremes, since the standard deviation of equal numbers need not be zero after rounding.
    std = known.std() if known.max() > known.min() else numpy.inf
    scaled = numpy.where(absent, 0.0, (values - known.mean()) / std)
    if not absent[train].any():
        return [column], scaled[:, None]
    return [column, f"{column} is empty"], numpy.stack([scaled, absent], axis=1)


def _one_hot(table: Columns, column: str, train: numpy.ndarray, max_categories: int) -> tuple[list[str], numpy.ndarray]:
    cells = table.texts(column)
    seen = {cells[row] for row in train}
    categories: list[str | None] = [*sorted(cell for cell in seen if cell is not None), *([None] * (None in seen))]
    if len(categories) > max_categories:
        raise DataError(
            f"{table.path}, column {column}: {len(categories)} different texts in training, more than "
            f"dataset.max_categories={max_categories}; leave it out of dataset.inputs, or raise the limit"
        )
    names = [f"{column} is empty" if category is None else f"{column}={category}" for category in categories]
    known = {category: index for index, category in enumerate(categories)}
    indices = numpy.array([known.get(cell, -1) for cell in cells])
    return names, (indices[:, None] == numpy.arange(len(categories))).astype(float)
