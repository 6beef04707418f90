"""A table of labels: its columns are the targets of tasks, and its rows are divided into three splits."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import CountOrZero, Folds, OpenFraction, Seed, Width, checked
from mtlrun.config.suggest import suggest
from mtlrun.datasets.base import MultiTaskDataset, SplitName
from mtlrun.datasets.tables.labels.targets import check_target_keys, class_columns, read_targets, reads
from mtlrun.datasets.tables.learned import describe_targets, learned_of_targets
from mtlrun.datasets.tables.names import identify, weigh_by_task
from mtlrun.datasets.tables.reading.missing import MISSING
from mtlrun.datasets.tables.reading.source import Source
from mtlrun.datasets.tables.splits.division import SplitKeys, read_groups, select_rows, split_rows
from mtlrun.datasets.tables.splits.redivision import Redivision
from mtlrun.datasets.tables.words import ColumnName, Label, column_name, column_names

logger = logging.getLogger(__name__)


class LabelTable(MultiTaskDataset):
    """Base of the datasets whose targets are columns of a CSV or Parquet file, with a row for each sample.

    Classes are numbered in the order of `classes`, or else: numbers by value, no before yes, and texts as an ordered
    column of Parquet keeps them, or by the alphabet. Levels of an ordinal task are in the order that their words
    give, such as low, medium, high, and refused if there is none. An empty cell of a target is a missing label. Rows
    without any cell that is not empty are left out.

    Args:
        path: CSV, or Parquet if it ends in .parquet or .pq, which needs pyarrow; or a file for each split, {train: ...,
            test: ...}, val optional. A subclass gives it, by the key `file_key`.
        tasks, kinds: names of the tasks, and of their classes, as in `mtlrun.tasks.Regression`; filled in by the YAML.
        targets: {task: column, or list of columns}; the default is the column of the task's name.
        classes: {task: list of its labels in the order of their indices}.
        sizes: for each task how many labels it expects, None for any number; filled in by the YAML.
        positives: for each binary task the label that is positive, None for the usual one; filled in by the YAML.
        label_separator: what stands between the labels in a cell, where one column is the target of a multi-label task.
            An empty cell is a missing label; a separator alone is a row without any of the labels.
        split_column: a column that holds train, val or test for each row; without val, it is drawn from train. None
            to draw all splits.
        splits: {value of `split_column`: train, val, test, or None to leave its rows out}.
        fractions: of train, val and test, if they are drawn.
        group_column: rows with equal values in this column are never in two splits.
        stratify: one or more columns whose values are equally frequent in all splits.
        time_column: numbers or dates; train is the past, then comes val, then test. No input unless `inputs` names it.
        num_folds, fold: test is one of so many parts of equal size, `fold` in 0 to num_folds - 1; each row is in one.
        split_seed: fixes the drawing; the run's seed does not.
        id_column: a column with the names of the rows in the record of the run, all different; None for their numbers.
        weight_column: a column of numbers >= 0: how much each row counts in the training losses, which are then
            weighted means; or {task: such a column}. Metrics, and the losses of validation and test, ignore it.
        missing: texts and numbers that stand for an empty cell; an empty cell always does.
        separator: between the cells of a CSV file: a character, `tab` or a regular expression; None to find it.
        encoding: of a CSV file; a byte order mark is followed whatever this says.
        decimal, thousands: the notation of numbers: the sign before decimals, and the one between groups of digits.
    """

    chooses_positive = True
    #: The key of the config that names the file.
    file_key = "path"

    @checked
    def __init__(
        self,
        path: str | Mapping[str, str],
        /,
        tasks: Sequence[str],
        kinds: Sequence[str],
        targets: Mapping[str, ColumnName | list[ColumnName]] | None = None,
        classes: Mapping[str, Sequence[Label]] | None = None,
        sizes: Sequence[Width | None] | None = None,
        positives: Sequence[Label | None] | None = None,
        label_separator: str | None = None,
        split_column: ColumnName | None = None,
        splits: Mapping[str, SplitName | None] | None = None,
        fractions: Sequence[OpenFraction] = (0.7, 0.15, 0.15),
        group_column: ColumnName | None = None,
        stratify: ColumnName | Sequence[ColumnName] | None = None,
        time_column: ColumnName | None = None,
        num_folds: Folds | None = None,
        fold: CountOrZero | None = None,
        split_seed: Seed = 0,
        id_column: ColumnName | None = None,
        weight_column: ColumnName | Mapping[str, ColumnName] | None = None,
        missing: Sequence[Label] = MISSING,
        separator: str | None = None,
        encoding: str = "utf-8",
        decimal: str = ".",
        thousands: str | None = None,
    ) -> None:
        split_column, group_column, time_column, id_column = (
            None if name is None else column_name(name, key)
            for name, key in (
                (split_column, "split_column"), (group_column, "group_column"), (time_column, "time_column"),
                (id_column, "id_column"),
            )
        )  # fmt: skip
        weights: str | dict[str, str] | None = None
        if isinstance(weight_column, Mapping):
            weights = {task: column_name(name, f"weight_column.{task}") for task, name in weight_column.items()}
        elif weight_column is not None:
            weights = column_name(weight_column, "weight_column")
        strata = [stratify] if isinstance(stratify, ColumnName) else stratify or ()
        keys = SplitKeys(
            split_column, splits or {}, fractions, group_column, column_names(strata, "stratify"), time_column,
            num_folds, fold, split_seed, self.file_key,
        )  # fmt: skip
        columns = {
            task: column_names(named if isinstance(named, list) else [named], f"targets.{task}")
            for task, named in (targets or {}).items()
        }
        check_target_keys(tasks, kinds, classes or {})
        weight_columns = {"": weights} if isinstance(weights, str) else weights or {}
        for task in weight_columns:
            if task and task not in (*tasks, *columns):
                raise ValueError(f"weight_column must name tasks ({', '.join(tasks)}), found {task!r}")
        source = Source.from_keys(
            path, self.file_key, missing=missing, separator=separator, encoding=encoding, decimal=decimal,
            thousands=thousands,
        )  # fmt: skip
        keys.check_source(one_file=None in dict(source.files))
        kind_of = dict(zip(tasks, kinds, strict=True))
        labels = [
            column
            for task in tasks
            if reads(task, kind_of[task]) not in ("numbers", "counts")
            for column in columns.get(task, [task])
        ]
        texts = [*labels, *filter(None, (split_column, group_column, id_column)), *column_names(strata, "stratify")]
        table, given = source.read(texts)
        self.data_paths: list[str | Path] = [file for _, file in source.files]
        for task in classes or {}:
            if task not in (*tasks, *columns, *table.names):
                raise ValueError(f"classes: there is no task {task!r}; {suggest(task, tasks, 'the tasks are')}")
        self._redivision = Redivision(table, keys, given, class_columns(table, kind_of, columns))
        division = split_rows(table, keys, given, self._redivision.label_columns)
        #: The rows that are in a split, and {split: positions of its rows in the table}.
        self.table, self.rows = select_rows(table, division.rows)
        found = read_targets(
            self.table, self.rows, kind_of, columns, classes or {},
            sizes=dict(zip(tasks, sizes or [None] * len(tasks), strict=True)),
            positives=dict(zip(tasks, positives or [None] * len(tasks), strict=True)), label_separator=label_separator,
            refuse_unlearned=num_folds is None,
        )  # fmt: skip
        self.notes = [*table.notes, *division.notes, *found.notes]
        self.task_names = tuple(tasks)
        self.task_sizes = found.sizes
        #: {task: labels in the order of their class indices}.
        self.classes = found.classes
        self._found, self._kinds = found, kind_of
        self.target_columns = {column for columns in found.columns.values() for column in columns}
        #: The columns that describe rows and are no inputs.
        named = (split_column, group_column, time_column, id_column, *weight_columns.values())
        self.row_columns = {column for column in named if column is not None}
        self._group_column = group_column
        self._targets = found.tensors
        self._ids = identify(self.table, id_column)
        self._weights = weigh_by_task(self.table, weights, self.rows["train"])
        for line in describe_targets(found, kind_of, self.label_counts()):
            logger.info("%s", line)

    def groups(self, name: SplitName) -> Tensor | None:
        if self._group_column is None:
            return None
        return torch.from_numpy(read_groups(self.table, self._group_column)[self.rows[name]])

    def learned(self) -> dict[str, Any]:
        return {"targets": learned_of_targets(self.table, self._found, self._kinds, self.label_counts())}

    def label_counts(self) -> dict[str, dict[str, dict[SplitName, int]]]:
        """Return {task: {label: {split: number of its rows with it}}} of the tasks in `classes`, in their order."""
        counts: dict[str, dict[str, dict[SplitName, int]]] = {}
        for task, names in self.classes.items():
            target = self._targets[task]
            of_split = {}
            for split, rows in self.rows.items():
                found = target[torch.from_numpy(rows)]
                several = found.dim() == 2
                numbers = (found == 1).sum(dim=0) if several else found[found >= 0].bincount(minlength=len(names))
                of_split[split] = numbers.tolist()
            counts[task] = {
                name: {split: numbers[index] for split, numbers in of_split.items()} for index, name in enumerate(names)
            }
        return counts

    def redivide(self, task: str) -> Iterator[tuple[str, dict[SplitName, dict[str, Tensor]]]]:
        for override, division in self._redivision.others(self._found.columns[task]):
            yield (
                override,
                {
                    name: {task: target[torch.from_numpy(rows)] for task, target in self._targets.items()}
                    for name, rows in division.items()
                },
            )

    def labels(self, name: SplitName) -> dict[str, Any]:
        """Return the attributes `targets`, `sample_ids` and `sample_weights` of a split."""
        rows = torch.from_numpy(self.rows[name])
        return {
            "targets": {task: target[rows] for task, target in self._targets.items()},
            "sample_ids": [self._ids[row] for row in rows.tolist()],
            "sample_weights": self._weights if name == "train" else None,
        }
