"""Kinds of tasks, found in the columns that `dataset.predict` names; docs/your_data/labels.md has the rules.

What is uncertain is decided for the kind that assumes less, and the line on it has the word that chooses another.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy

from mtlrun.config.completion import Finding, Findings
from mtlrun.config.instantiate import check_arguments
from mtlrun.config.listing import item
from mtlrun.config.targets import component
from mtlrun.datasets.tables.labels.classes import read_classes
from mtlrun.datasets.tables.labels.column_labels import YES_NO, Labels, find_labels
from mtlrun.datasets.tables.labels.indicators import example_of_separator, is_list, split_list
from mtlrun.datasets.tables.labels.levels import order_of_levels
from mtlrun.datasets.tables.labels.task_names import name_column, name_tasks
from mtlrun.datasets.tables.reading.advice import examine
from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.missing import is_usual
from mtlrun.datasets.tables.reading.source import Source
from mtlrun.datasets.tables.words import ColumnName, Label, assignment, assignment_of_label, column_names, label_value
from mtlrun.errors import ConfigError, DataError

# Whole numbers are classes if there are at most so many different ones, and on average so many rows of each.
_MOST_NUMBERS, _ROWS_OF_NUMBER = 10, 10
# Whole numbers that begin higher than this are hardly numbers of things.
_LEAST_COUNT = 10
# More different texts than this are no classes, unless there are on average so many rows of each.
_MOST_TEXTS, _ROWS_OF_TEXT = 10, 3
# Rows from which on different whole numbers without a gap are taken for the numbers of rows.
_ROW_NUMBERS = 10
# Whole numbers beyond this are not told apart by floating-point numbers.
_LARGEST_WHOLE = 2**53
# Columns, and labels, that are listed at most.
_LISTED_COLUMNS, _LISTED_LABELS = 50, 12
_ROW_KEYS = ("split_column", "group_column", "time_column", "id_column", "weight_column")


@dataclass(frozen=True)
class _Keys:
    """The keys of a dataset that matter here, whose types are checked as those of its class are."""

    predict: ColumnName | list[ColumnName] | None
    targets: Mapping[str, ColumnName | list[ColumnName]] | None
    classes: Mapping[str, list[Label]] | None
    label_separator: str | None
    missing: list[Label]
    separator: str | None
    encoding: str
    decimal: str
    thousands: str | None
    split_column: ColumnName | None
    group_column: ColumnName | None
    time_column: ColumnName | None
    id_column: ColumnName | None
    weight_column: ColumnName | Mapping[str, ColumnName] | None
    stratify: ColumnName | list[ColumnName] | None


def _chosen(dataset: Mapping[str, Any], keys: type) -> dict[str, Any]:
    return {field.name: dataset[field.name] for field in fields(keys) if field.name in dataset}


@component
def find_tasks(predict: Any, dataset: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> Findings:
    """Return a task for each name in `predict`, with the kind that its columns suggest.

    Args:
        predict: a column, or a list of columns or of tasks in `dataset.targets`; None is refused.
        dataset: the other keys of the dataset.
        tasks: {task: the keys that the user sets}; one with a class keeps its kind.

    Raises:
        ConfigError: `predict` names nothing, or something twice.
        DataError: the table cannot be read, or what it holds in a column cannot be predicted as it is.
    """
    whole = [task for task, node in tasks.items() if "_target_" in node]
    key = "path" if "path" in dataset else "labels"
    if dataset[key] is None:
        if predict is None:
            return Findings({})  # the dataset refuses that
        raise ConfigError(f"dataset.{key} must name a CSV or Parquet file, as in dataset.{key}=houses.csv, found null")
    problems = check_arguments(_Keys, {"predict": predict, **_chosen(dataset, _Keys)}, "dataset")
    if not isinstance(dataset[key], str | Mapping):
        problems.append(f"dataset.{key} must be a text or a mapping, found {dataset[key]!r}")
    if problems:
        raise ConfigError(problems)
    try:
        source = Source.from_keys(
            dataset[key],
            key,
            **{name: dataset[name] for name in ("missing", "separator", "encoding", "decimal", "thousands")},
        )
        entries = column_names(
            predict if isinstance(predict, list) else [] if predict is None else [predict], "predict"
        )
        targets = {
            str(task): column_names(named if isinstance(named, list) else [named], f"targets.{task}")
            for task, named in (dataset["targets"] or {}).items()
        }
        texts = [name for row_key in (*_ROW_KEYS[:-1], "stratify") for name in _names(dataset[row_key])]
    except ValueError as error:
        raise ConfigError(f"dataset.{error}") from error
    table = source.read_ahead(texts)
    if not entries:
        raise ConfigError(
            f"dataset.predict must name one or more columns to predict, as in dataset.predict=[{_example(table)}]; "
            f"{table.path} has: {', '.join(table.names[:_LISTED_COLUMNS])}"
            + (" ..." if len(table.names) > _LISTED_COLUMNS else "")
        )
    columns = name_tasks(table, entries, targets)
    _check_row_columns(columns, dataset)
    finder = _Finder(table, dataset, tasks)
    found = {
        task: Finding(None) if task in whole else name_column(finder.find(task, named), task, named)
        for task, named in columns.items()
    }
    new = {
        task: named[0] if len(named) == 1 else named
        for task, named in columns.items()
        if task not in targets and named != [task]
    }
    keys = {"targets": {**(dataset["targets"] or {}), **new}} if new else {}
    return Findings(found, keys | finder.keys())


def _names(value: Any) -> list[str]:
    return [] if value is None else [str(name) for name in (value if isinstance(value, list) else [value])]


def _example(table: Columns) -> str:
    return table.names[-1] if re.fullmatch(r"\w+", table.names[-1], re.ASCII) else "price"


def _check_row_columns(tasks: Mapping[str, Sequence[str]], dataset: Mapping[str, Any]) -> None:
    """Raise DataError if a column that describes rows is to be predicted."""
    for key in _ROW_KEYS:
        value = dataset[key]
        describing = _names(list(value.values()) if isinstance(value, Mapping) else value)
        for columns in tasks.values():
            for column in columns:
                if column in describing:
                    raise DataError(
                        f"dataset.predict: {column!r} is dataset.{key}, which describes rows; take it out of one"
                    )


class _Finder:
    """The search for kinds of tasks in the columns of a table.

    Args:
        table: that was read.
        dataset: the keys of the dataset.
        tasks: the keys that the user sets of each task.
    """

    def __init__(self, table: Columns, dataset: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> None:
        self._table = table
        self._separator: str | None = dataset["label_separator"]
        self._given = {
            str(task): [str(label) for label in labels] for task, labels in (dataset["classes"] or {}).items()
        }
        self._positive = {
            task: str(node["positive"]).strip()
            for task, node in tasks.items()
            if node.get("positive") is not None and not isinstance(node["positive"], bool)  # which the task refuses
        }
        self._new_separator: str | None = None

    def keys(self) -> dict[str, Any]:
        """Return the keys of the dataset that follow from what was found."""
        return {} if self._new_separator is None else {"label_separator": self._new_separator}

    def find(self, task: str, columns: Sequence[str]) -> Finding:
        """Return the kind of a task, with the sentence on it."""
        if len(columns) > 1:
            return self._find_several(task, columns)
        cells = self._table.cells[columns[0]]
        if cells.missing.all():
            raise DataError(f"{self._where(columns[0])}: every cell is empty, so there is nothing to predict")
        numeric = cells.are_numbers or bool((numpy.isfinite(cells.numbers) | cells.missing).all())
        if numeric and cells.order is None:
            return self._find_numbers(task, columns[0])
        return self._find_texts(task, columns[0], cells)

    def _where(self, column: str) -> str:
        return f"{self._table.path}, column {column}"

    # ---------------------------------------------------------------------------------------------------- numbers

    def _find_numbers(self, task: str, column: str) -> Finding:
        numbers = self._table.floats(column)
        known = numbers[~numpy.isnan(numbers)]
        values, counts = numpy.unique(known, return_counts=True)
        if abs(values).max() > _LARGEST_WHOLE and len(values) < len(self._table.cells[column].labels):
            raise DataError(
                f"{self._where(column)}: whole numbers of more than 15 digits, as ids are, which nothing predicts, and "
                "which cannot be told apart as numbers; take it out of dataset.predict"
            )
        if len(values) <= 2:
            return self._find_classes(task, column)
        span = _span(values[0], values[-1])
        if (values % 1 != 0).any():
            return Finding("regression", line=f"regression: numbers from {span}{_gaps(numbers)}")
        what = f"{len(values)} different whole numbers from {span}"
        all_different = len(values) == len(known)
        if all_different and len(known) >= _ROW_NUMBERS and values[-1] - values[0] == len(values) - 1:
            raise DataError(
                f"{self._where(column)}: {what}, one in each row, as numbers of rows are, which nothing predicts; take "
                f"it out of dataset.predict, or if it is a quantity: +task@tasks.{task}=regression"
            )
        if len(values) <= _MOST_NUMBERS and len(known) >= _ROWS_OF_NUMBER * len(values):
            listing = ", ".join(f"{_write(value)} ({count:,})" for value, count in zip(values, counts, strict=True))
            quantity = "count" if _are_counts(values, counts, known) else "regression"
            return Finding(
                "classification",
                line=f"classification: {len(values)} different whole numbers, {listing}{_gaps(numbers)}; if their "
                f"order matters: {_choose(task, 'ordinal')}; if they are quantities: {_choose(task, quantity)}",
            )
        if _are_counts(values, counts, known):
            return Finding(
                "count",
                line=f"count: {what}, mostly small ones{_gaps(numbers)}; if they are no numbers of things: "
                f"{_choose(task, 'regression')}",
            )
        others = [f"; if they are classes: {_choose(task, 'classification')}"] if len(values) <= _MOST_NUMBERS else []
        others += (
            [f"; if they are numbers of things: {_choose(task, 'count')}"] if 0 <= values[0] < _LEAST_COUNT else []
        )
        return Finding("regression", line=f"regression: {what}{_gaps(numbers)}{''.join(others)}")

    # ------------------------------------------------------------------------------------------------------ texts

    def _find_texts(self, task: str, column: str, cells: Cells) -> Finding:
        separator = self._list_separator(cells)
        if separator is not None:
            return self._find_lists(task, column, cells, separator)
        words = [text for text in cells.labels if not is_usual(text)]
        num_rows = int((cells.indices >= 0).sum())
        certain = cells.order is not None or order_of_levels(words) is not None
        if certain and len(words) > 2 and len(words) == len(cells.labels) and task not in self._given:
            labels, _ = read_classes(self._table, column, task, "levels")
            why = ", in the order of the file" if cells.order is not None else ""
            return Finding(
                "ordinal",
                line=f"ordinal: {_levels(labels)}{_gaps(cells.missing)}{why}; for another order: {labels.how_to_list()}"
                f"; if it does not matter: {_choose(task, 'classification')}",
            )
        doubt = self._refuse_other_cells(column, task, cells)
        if len(words) == num_rows > 2 or (len(words) > _MOST_TEXTS and num_rows < _ROWS_OF_TEXT * len(words)):
            if doubt is not None:
                raise DataError(f"{self._where(column)}: {doubt}; as classes: {_choose(task, 'classification')}")
            separators = example_of_separator(cells.labels)
            lists = f"; if cells are lists of labels, set what stands between them{separators}" if separators else ""
            raise DataError(
                f"{self._where(column)}: {len(words):,} different texts in {num_rows:,} rows, such as {words[0]!r}, "
                "are no classes that can be learned; take it out of dataset.predict, put texts of one meaning together "
                f"first, or insist: {_choose(task, 'classification')}{lists}"
            )
        return self._find_classes(task, column)

    def _find_classes(self, task: str, column: str) -> Finding:
        """Return the finding of a column whose different cells are classes: two are no and yes."""
        names = find_labels(self._table, column, task).names
        if len([name for name in names if not is_usual(name)]) > 2:
            labels, _ = read_classes(self._table, column, task, "classes", self._given.get(task))
            return Finding(
                "classification",
                line=f"classification: {len(labels.names):,} classes, {labels.listing()}{_gaps(labels.indices < 0)}",
            )
        labels, _ = read_classes(
            self._table, column, task, "binary", self._given.get(task), positive=self._positive.get(task)
        )
        no, yes = labels.names
        why = "" if labels.ordered else ", by the alphabet"
        return Finding(
            "binary",
            line=f"binary: {labels.listing()}{_gaps(labels.indices < 0)}; positive is {yes}{why}; for the other: "
            f"{assignment_of_label(f'tasks.{task}.positive', no)}",
        )

    def _refuse_other_cells(self, column: str, task: str, cells: Cells) -> str | None:
        """Raise DataError if texts are dates, numbers in another notation, or numbers with a few words among them.

        Returns:
            What they may be instead of classes, in words; None for nothing.
        """
        found = examine(cells, self._table.notation, self._table.numbers)
        if found is None or (found.may_be_categories and not (found.notations or found.date_formats or found.missing)):
            return None if found is None else found.what
        if found.date_formats:
            raise DataError(
                f"{self._where(column)}: {found.what}, which cannot be predicted as it is: replace it in the file by a "
                f"number, such as days until then, or by classes, such as months"
            )
        ways = [f"numbers in this notation: {' or '.join(found.notations)}"] if found.notations else []
        if found.missing:
            entries = dict.fromkeys([*self._table.missing_texts, *found.missing])
            ways.append(f"for missing labels: {assignment('missing', entries)}")
        ways.append(f"as classes: {_choose(task, 'classification')}")
        raise DataError(f"{self._where(column)}: {'; '.join([found.what, *ways])}")

    # ---------------------------------------------------------------------------------------------- several labels

    def _list_separator(self, cells: Cells) -> str | None:
        """Return what stands between the labels of a cell: an empty text for lists of Parquet, None if none are."""
        labels = cells.labels
        if all(is_list(text) for text in labels):
            return ""
        candidates = [self._separator] if self._separator else [";", "|"]
        for separator in candidates:
            joined = [text for text in labels if separator in text]
            parts = {part for text in labels for part in split_list(text, separator)}
            if len(joined) * 2 > len(labels) and len(parts) < len(labels):
                return separator
        return None

    def _find_lists(self, task: str, column: str, cells: Cells, separator: str) -> Finding:
        rows = numpy.bincount(cells.indices[cells.indices >= 0], minlength=len(cells.labels))
        counts: dict[str, int] = {}
        for text, number in zip(cells.labels, rows.tolist(), strict=True):
            for part in set(split_list(text, separator or None)):
                counts[part] = counts.get(part, 0) + number
        num_rows, num_parts = int(rows.sum()), sum(counts.values())
        if not counts:
            raise DataError(f"{self._where(column)}: every list is empty, so there is nothing to predict")
        if len(counts) > _MOST_TEXTS and num_parts < _ROWS_OF_TEXT * len(counts):
            raise DataError(
                f"{self._where(column)}: {len(counts):,} different labels in the lists of {num_rows:,} rows, such as "
                f"{min(counts)!r}, are too many to be learned; take it out of dataset.predict, put labels of one "
                f"meaning together first, or insist: {_choose(task, 'multilabel')}"
            )
        if separator and separator != self._separator:
            if self._new_separator not in (None, separator):
                raise DataError(
                    f"{self._where(column)}: labels are separated by {separator!r} here and by {self._new_separator!r} "
                    "in another column; predict them in separate runs, or write them alike"
                )
            self._new_separator = separator
        what = "lists" if not separator else f"lists with {separator!r} between labels"
        listing = ", ".join(f"{item(name)} ({counts[name]:,})" for name in sorted(counts)[:_LISTED_LABELS])
        more = f" and {len(counts) - _LISTED_LABELS} more" if len(counts) > _LISTED_LABELS else ""
        change = f"; if cells are classes as they are: {_choose(task, 'classification')}" if separator else ""
        return Finding("multilabel", line=f"multilabel: {what}, {listing}{more}{_gaps(cells.missing)}{change}")

    def _find_several(self, task: str, columns: Sequence[str]) -> Finding:
        """Return the finding of several columns: labels that a row has or has not, or numbers."""
        cells = [self._table.cells[column] for column in columns]
        values = [{label_value(label.casefold()) for label in cell.labels} for cell in cells]
        if all(any(found <= {*pair} for pair in YES_NO) for found in values):
            return Finding("multilabel", line=f"multilabel: yes or no in each of {', '.join(columns)}")
        for column in columns:
            self._table.floats(column)
        return Finding("regression", {"num_outputs": len(columns)}, f"regression: the numbers {', '.join(columns)}")


def _choose(task: str, kind: str) -> str:
    return f"+task@tasks.{task}={kind}"


def _levels(labels: Labels) -> str:
    counts = numpy.bincount(labels.indices[labels.indices >= 0], minlength=len(labels.names))
    return " < ".join(f"{item(name)} ({count:,})" for name, count in zip(labels.names, counts, strict=True))


def _gaps(cells: numpy.ndarray) -> str:
    """Return how many cells are empty, from a mask of them or from numbers; nothing if none is."""
    count = int((cells if cells.dtype == bool else numpy.isnan(cells)).sum())
    return f", {count:,} empty" if count else ""


def _write(number: float, digits: int = 6) -> str:
    return f"{number:.0f}" if number % 1 == 0 and abs(number) < 1e15 else f"{number:.{digits}g}"


def _span(low: float, high: float) -> str:
    """Return from where to where, with as many digits as tell one from the other, and six at least."""
    different = (digits for digits in range(6, 17) if f"{low:.{digits - 2}g}" != f"{high:.{digits - 2}g}")
    digits = next(different, 17)
    return f"{_write(low, digits)} to {_write(high, digits)}"


def _are_counts(values: numpy.ndarray, counts: numpy.ndarray, known: numpy.ndarray) -> bool:
    """Return True if whole numbers look like numbers of things: from 0 on, small ones most often, few gaps."""
    if values[0] != 0:
        return False
    most = float(numpy.quantile(known, 0.95))
    present = int((values <= most).sum())
    return bool(numpy.median(known) < values[-1] / 3 and present >= (most + 1) / 2)
