"""csv: a table of one's own, CSV or Parquet; see docs/your_data.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import MultiTaskDataset, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.rows.columns import MISSING, Columns, read
from mtlrun.datasets.rows.names import identify, weigh
from mtlrun.datasets.rows.splits import check_split_keys, split_rows
from mtlrun.datasets.rows.targets import check_target_keys, read_targets
from mtlrun.errors import DataError


class Table(MultiTaskDataset):
    """Rows of a CSV or Parquet file: some columns are the input, others the targets of tasks.

    Inputs are [num_features] float32. Statistics are those of the training split: numbers are standardized (a column
    that is constant there is 0 everywhere), an empty cell is the mean, and a further feature says that it was empty
    if the column has empty cells in training. Texts are one-hot, with the categories of training in sorted order;
    an empty cell is a category of its own if training has one, and what is not in training is all zeros.

    Classes are numbered in the sorted order of all labels of the file, numbers by value; `classes` says otherwise. An
    empty cell of a target is a missing label. All cells of a row being empty, it is left out.

    Args:
        path: CSV, or Parquet by its ending .parquet or .pq, which needs pyarrow.
        tasks, kinds: names of the tasks, and of their classes: `mtlrun.tasks.Regression`; filled in by the YAML.
        targets: {task: column, or list of columns}; a task that it does not name has the column of its own name.
        inputs: columns; None for all that are no target and not the column of splits, groups, ids or weights.
        categorical: columns of numbers that are to be treated as texts.
        classes: {task: list of its labels in the order of their indices}.
        standardize_targets: tasks whose numbers are scaled; their metrics are then in standard deviations.
        split_column: holds train, val or test for each row; None to draw.
        fractions: of train, val and test, if they are drawn.
        group_column: rows with equal values are never in two splits.
        stratify: a column whose values get equal shares in all splits.
        split_seed: fixes the drawing; the run's seed does not.
        id_column: what a row is called, in the record of the run; no two rows may have the same.
        weight_column: how much each row counts in the losses of training, >= 0: a mean is one by weight. Metrics, and
            the losses of validation and test, do not know of weights.
        missing: texts that stand for an empty cell.
        separator: between the cells of a CSV file.
        max_categories: so many different texts at most in a column of the inputs.
        cache: `memory`, or `device`: the inputs lie on the GPU.
    """

    def __init__(
        self,
        path: str | None,
        tasks: Sequence[str],
        kinds: Sequence[str],
        targets: Mapping[str, str | list[str]] | None = None,
        inputs: Sequence[str] | None = None,
        categorical: Sequence[str] = (),
        classes: Mapping[str, Sequence[Any]] | None = None,
        standardize_targets: Sequence[str] = (),
        split_column: str | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        group_column: str | None = None,
        stratify: str | None = None,
        split_seed: int = 0,
        id_column: str | None = None,
        weight_column: str | None = None,
        missing: Sequence[str] = MISSING,
        separator: str = ",",
        max_categories: int = 100,
        cache: TensorCache = "memory",
    ) -> None:
        if path is None:
            raise ValueError("path must name a CSV or Parquet file, as in dataset.path=houses.csv, found null")
        if max_categories < 1:
            raise ValueError(f"max_categories must be >= 1, found {max_categories}")
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        check_split_keys(split_column, fractions, group_column, stratify, split_seed)
        check_target_keys(tasks, kinds, classes or {}, standardize_targets)
        table = read(path, separator, missing)
        self.rows = split_rows(
            table, split_column=split_column, fractions=fractions, group_column=group_column, stratify=stratify,
            split_seed=split_seed,
        )  # fmt: skip
        kind_of = dict(zip(tasks, kinds, strict=True))
        found = read_targets(table, self.rows, kind_of, targets or {}, classes or {}, standardize_targets)
        self.task_names = tuple(tasks)
        self.classes, self.scales, self._targets = found.classes, found.scales, found.tensors
        self._ids = identify(table, id_column)
        self._weights = weigh(table, weight_column, self.rows["train"])
        taken = {column for columns in found.columns.values() for column in columns}
        inputs = choose_inputs(table, inputs, taken, [split_column, group_column, id_column, weight_column])
        for column in categorical:
            if column not in inputs:
                raise DataError(f"dataset.categorical: {column!r} is none of the inputs: {', '.join(inputs)}")
        parts = [
            _one_hot(table, column, self.rows["train"], max_categories)
            if column in categorical or table.is_text(column)
            else _standardize(table, column, self.rows["train"])
            for column in inputs
        ]
        #: What each number of an input is: a column, `column=category`, or `column is empty`.
        self.features = [name for names, _ in parts for name in names]
        self._inputs = torch.from_numpy(numpy.concatenate([values for _, values in parts], axis=1)).float()
        self.input_shape = (len(self.features),)

    def split(self, name: SplitName) -> TensorSplit:
        rows = torch.from_numpy(self.rows[name])
        targets = {task: target[rows] for task, target in self._targets.items()}
        split = TensorSplit(self._inputs[rows], targets, [self._ids[row] for row in self.rows[name]])
        split.weights = self._weights if name == "train" else None
        return split


def choose_inputs(
    table: Columns, inputs: Sequence[str] | None, targets: set[str], others: Sequence[str | None]
) -> list[str]:
    """Return the columns that are the input; none of them may be a target."""
    if inputs is None:
        inputs = [column for column in table.frame.columns if column not in targets and column not in others]
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
    # By the extremes: the standard deviation of equal numbers need not be zero after rounding.
    spread = known.std() if known.max() > known.min() else numpy.inf
    scaled = numpy.where(absent, 0.0, (values - known.mean()) / spread)
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
    places = numpy.array([known.get(cell, -1) for cell in cells])
    return names, (places[:, None] == numpy.arange(len(categories))).astype(float)
