"""csv: a table of your own, CSV or Parquet; see docs/your_data.md."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.config.bounds import Count, Width, checked
from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import SplitName, TensorCache, TensorSplit
from mtlrun.datasets.tables.inputs.categories import Encoding, check_buckets
from mtlrun.datasets.tables.inputs.doubts import doubt_inputs
from mtlrun.datasets.tables.inputs.features import describe_columns, describe_unseen, make_features
from mtlrun.datasets.tables.inputs.fillers import doubt_fillers
from mtlrun.datasets.tables.inputs.kinds import InputKeys, find_inputs
from mtlrun.datasets.tables.inputs.scaling import Scale
from mtlrun.datasets.tables.label_table import LabelTable
from mtlrun.datasets.tables.learned import learned_of_inputs
from mtlrun.datasets.tables.words import ColumnName, column_name, column_names

logger = logging.getLogger(__name__)


class Table(LabelTable):
    """Rows of a CSV or Parquet file: some columns are the input, others the targets of tasks.

    Inputs are [num_features] float32. All statistics are those of the training split: numbers are scaled (a column that
    is constant there is 0 everywhere), and an empty cell becomes 0; if the column has empty cells in training, one more
    feature marks them. Dates are numbers: days since 1970-01-01. Texts have the categories of training, in sorted
    order; an empty cell is a category if training has one. Where categories are one-hot, what is none of them is all
    zeros; where they are indices, for embeddings, it is 0, and the first category is 1. Numbers in another notation,
    dates and lists are no categories unless `categorical` names their column: they are refused with the keys that
    settle them.

    Args:
        path: CSV, or Parquet if it ends in .parquet or .pq, which needs pyarrow; or a file for each split, {train: ...,
            test: ...}, val optional.
        inputs: columns; None for all that are no target and not the column of splits, groups, times, ids or weights.
        exclude: columns that are no inputs.
        categorical: columns that are to be treated as texts.
        dates: columns of dates or times, which become numbers; a list, or {column: format, as in `datetime.strptime`},
            where None finds the format.
        scale: of numbers: `standard`, to mean 0 and standard deviation 1; `robust`; or `quantile`, to a normal
            distribution; see `tables.inputs.scaling`.
        category_encoding: `one_hot`, or `index`, one number for each column, for networks that embed categories.
        max_categories: the most different texts that a column of the inputs may have, if they are one-hot.
        min_category_rows: a text or bucket that fewer rows of training have is none of the categories. With 2 or more
            the embedding of what is none is trained, on rare ones.
        hash_buckets: columns with more different texts than this in training have so many hash buckets as categories;
            or {column: buckets}; None to hash none.
        cache: `memory`; `device`: samples lie on the GPU; `auto`: there if it has room for them.
        **rows: targets, splits, ids and weights: see `LabelTable`.
    """

    @checked
    def __init__(
        self,
        path: str | Mapping[str, str] | None,
        inputs: Sequence[ColumnName] | None = None,
        exclude: Sequence[ColumnName] = (),
        categorical: Sequence[ColumnName] = (),
        dates: Sequence[ColumnName] | Mapping[ColumnName, str | None] | None = None,
        scale: Scale = "standard",
        category_encoding: Encoding = "one_hot",
        max_categories: Count = 100,
        min_category_rows: Count = 1,
        hash_buckets: Width | Mapping[ColumnName, Width] | None = None,
        cache: TensorCache = "auto",
        **rows: Any,
    ) -> None:
        if path is None:
            raise ValueError("path must name a CSV or Parquet file, as in dataset.path=houses.csv, found null")
        check_one_of("scale", scale, Scale)
        check_one_of("category_encoding", category_encoding, Encoding)
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        formats = dates if isinstance(dates, Mapping) else dict.fromkeys(dates or ())
        keys = InputKeys(
            None if inputs is None else column_names(inputs, "inputs"), column_names(exclude, "exclude"),
            column_names(categorical, "categorical"),
            {column_name(name, "dates"): format for name, format in formats.items()}, scale, category_encoding,
            max_categories, min_category_rows,
            check_buckets(hash_buckets),
        )  # fmt: skip
        super().__init__(path, **rows)
        found = find_inputs(self.table, keys, self.target_columns, self.row_columns, self.rows["train"])
        features = make_features(self.table, found, self.rows, keys)
        logger.info("%s", describe_columns(found, features, keys.exclude))
        doubts = doubt_inputs(
            self.table, found, self._targets, self.classes, self.rows["train"], keys.inputs, keys.exclude
        )
        numbers = [column for column, kind in found.kinds.items() if kind == "number"]
        numbers += [
            column for task in self.task_names if task not in self.classes for column in self._found.columns[task]
        ]
        doubts += doubt_fillers(self.table, numbers)
        self.notes = [*self.notes, *describe_unseen(features, self.rows), *doubts]
        #: The meaning of each number of an input, and its name: a column, `column=category`, or `column is empty`.
        self.columns, self.features = features.columns, features.names
        #: {column: what scales it} of numbers and dates, and {column: its categories} of texts; see `learned`.
        self.input_scales = features.scales
        self.categories = {column: found.labels for column, found in features.categories.items()}
        self._inputs = features.inputs
        self._learned = learned_of_inputs(self.table, found, features, self.rows["train"], keys)
        self.input_shape = (len(self.features),)

    def learned(self) -> dict[str, Any]:
        return {**super().learned(), "inputs": self._learned}

    def split(self, name: SplitName) -> TensorSplit:
        return TensorSplit(self._inputs[name], **self.labels(name))
