"""Targets from a table: columns become class indices, indicators or numbers, depending on the kind of each task."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy
import torch
from torch import Tensor

from mtlrun.config.listing import item
from mtlrun.config.targets import locate
from mtlrun.datasets.tables.labels.classes import SIZE_KEY, ClassKind, read_classes
from mtlrun.datasets.tables.labels.column_labels import Labels
from mtlrun.datasets.tables.labels.indicators import example_of_separator, is_list, read_lists, read_yes_no_columns
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.splits.division import Rows
from mtlrun.datasets.tables.words import Label, label_text, label_value
from mtlrun.errors import DataError, list_problems

_MISSING = -1
# Labels that are listed at most.
_LISTED = 5

#: What a task reads from its columns: one of a class's labels, several yes-or-no labels, counts, or other numbers.
Kind = ClassKind | Literal["indicators", "counts", "numbers"]


@dataclass(frozen=True)
class Targets:
    """The targets of all rows of a table.

    Args:
        columns: {task: its columns}, of all known tasks, trained or not: none of them is an input.
        tensors: {task: one target per row}, of the tasks that are trained.
        classes: {task: labels in the order of their class indices, or of the numbers of a multi-label target}.
        sizes: {task: number of these labels}, of the tasks that have a key for it.
        notes: sentences for the user.
    """

    columns: dict[str, list[str]]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_target_keys(tasks: Sequence[str], kinds: Sequence[str], classes: Mapping[str, Sequence[Label]]) -> None:
    """Raise ValueError if these keys of a dataset are inconsistent or out of bounds."""
    if not tasks:
        raise ValueError(
            "tasks must name one or more tasks, found none; add them by +task@tasks.<column>=regression or "
            "+task@tasks.<column>=classification"
        )
    if len(kinds) != len(tasks):
        raise ValueError(f"kinds must name a class for each of {', '.join(tasks)}, found {list(kinds)}")
    for task, values in classes.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"classes must map tasks to lists of labels, found {task}: {values!r}")
        labels = [label_value(label_text(value, f"classes.{task}")) for value in values]
        double = [value for value, label in zip(values, labels, strict=True) if labels.count(label) > 1]
        if double:
            raise ValueError(f"classes.{task} must hold different labels, found {double[0]!r} and {double[1]!r}")


def name_columns(table: Columns, tasks: Sequence[str], targets: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the columns of each task: those in `targets`, or the column of the task's name."""
    columns: dict[str, list[str]] = {}
    for task in dict.fromkeys([*targets, *tasks]):
        columns[task] = targets.get(task, [task])
        for column in columns[task]:
            table.require(column, f"task {task}")
    return columns


def class_columns(table: Columns, tasks: Mapping[str, str], targets: Mapping[str, list[str]]) -> list[str]:
    """Return the columns that hold the classes of tasks.

    Args:
        table, tasks, targets: as for `read_targets`.
    """
    columns = name_columns(table, list(tasks), targets)
    single = [
        columns[task][0]
        for task, name in tasks.items()
        if reads(task, name) in get_args(ClassKind) and len(columns[task]) == 1
    ]
    return list(dict.fromkeys(single))


def reads(task: str, name: str) -> Kind:
    """Return what a task reads from its columns: see its size, if it takes one, or by which shipped kind it is.

    Args:
        task: its name.
        name: importable name of its class.
    """
    target = locate(name, f"tasks.{task}._target_")
    parameters = inspect.signature(target).parameters
    sizes: dict[str, Kind] = {"num_classes": "classes", "num_levels": "levels", "num_labels": "indicators"}
    for size, kind in sizes.items():
        if size in parameters:
            return kind
    shipped: dict[str, Kind] = {"BinaryClassification": "binary", "Count": "counts"}
    bases = [base.__name__ for base in inspect.getmro(target)] if inspect.isclass(target) else []
    return next((shipped[base] for base in bases if base in shipped), "numbers")


def read_targets(
    table: Columns,
    rows: Rows,
    tasks: Mapping[str, str],
    targets: Mapping[str, list[str]],
    classes: Mapping[str, Sequence[Label]],
    *,
    sizes: Mapping[str, int | None] | None = None,
    positives: Mapping[str, Label | None] | None = None,
    label_separator: str | None = None,
    refuse_unlearned: bool = True,
) -> Targets:
    """Read the targets of all rows.

    Args:
        table: with the columns.
        rows: of each split.
        tasks: {task: importable name of its class}.
        targets: {task: its columns}; the default is the column of the task's name.
        classes: {task: labels in the order of their indices}; see `read_classes` and `labels.indicators`.
        sizes: {task: number of labels that it expects}; None or absent for any.
        positives: {task: the label that is yes}, of binary tasks; None or absent for the usual one.
        label_separator: between the labels in a cell of a multi-label target of one column.
        refuse_unlearned: refuse labels that training does not have, except those in `classes`.

    Raises:
        DataError: a column is missing, or a cell does not suit its task.
    """
    result = Targets(name_columns(table, list(tasks), targets))
    for task, name in tasks.items():
        columns, kind, size = result.columns[task], reads(task, name), (sizes or {}).get(task)
        given = [label_text(label, f"classes.{task}") for label in classes[task]] if task in classes else None
        if given is not None and kind == "numbers":
            kind = "classes"  # a kind of the user's that takes class indices without a number of classes
        if kind == "numbers" or kind == "counts":
            _check_words(table, columns, task)
            numbers = numpy.stack([table.floats(column) for column in columns], axis=1)
            if kind == "counts":
                _check_counts(table, columns, numbers, task)
            tensor = torch.tensor(numbers)
            if not getattr(locate(name, f"tasks.{task}._target_"), "takes_float64", False):
                tensor = tensor.float()
            result.tensors[task] = tensor.squeeze(1) if len(columns) == 1 else tensor
            continue
        if kind == "indicators":
            names, indicators, notes = _indicators(table, columns, task, given, size, label_separator)
            notes += _describe_unlearned(indicators, names, rows, task)
            result.tensors[task] = torch.from_numpy(indicators).float()
        else:
            if len(columns) != 1:
                raise DataError(f"dataset.targets.{task}: classes are read from one column, found {columns}")
            positive = (positives or {}).get(task)
            yes = None if positive is None else label_text(positive, f"positives, of task {task}")
            labels, notes = read_classes(table, columns[0], task, kind, given, size, yes)
            unlearned = list(_find_unlearned(labels.indices, rows))
            if unlearned and given is None and refuse_unlearned:
                raise DataError(_explain_unlearned(labels, unlearned, kind if size is not None else None))
            for split, row in unlearned:
                notes.append(
                    f"{table.where(columns[0], row)}: {labels.names[labels.indices[row]]!r} is in the {split} split "
                    f"and not in train, so every prediction for task {task} is wrong there"
                )
            names = labels.names
            result.tensors[task] = torch.from_numpy(labels.indices)
        result.classes[task] = names
        result.notes.extend([*notes, *_describe_spellings(names, task)])
        if kind != "binary":
            result.sizes[task] = len(names)
    return result


def _describe_spellings(labels: Sequence[str], task: str) -> list[str]:
    """Return a line on labels that differ only in case, or in the spaces in them."""
    spellings: dict[str, list[str]] = {}
    for label in labels:
        spellings.setdefault(" ".join(label.split()).casefold(), []).append(label)
    several = [" and ".join(map(repr, alike)) for alike in spellings.values() if len(alike) > 1]
    if not several:
        return []
    more = f"; and {len(several) - _LISTED} more" if len(several) > _LISTED else ""
    return [
        f"task {task}: labels that differ only in case or spaces are different classes: "
        f"{'; '.join(several[:_LISTED])}{more}; if they are the same, write them alike in the file"
    ]


def _check_words(table: Columns, columns: Sequence[str], task: str) -> None:
    """Raise DataError if a column has words, and no digit in any of them, where the task predicts numbers."""
    for column in columns:
        labels = table.cells[column].labels if not table.cells[column].are_numbers else []
        if labels and not any(character.isdigit() for label in labels for character in label):
            raise DataError(
                f"{table.path}, column {column}: task {task} predicts numbers, and the column has words, such as "
                f"{labels[0]!r}; add it as +task@tasks.{task}=classification, or as binary or ordinal"
            )


def _check_counts(table: Columns, columns: Sequence[str], numbers: numpy.ndarray, task: str) -> None:
    """Raise DataError if a number is not a count."""
    wrong = numpy.argwhere((numbers < 0) | (numbers != numpy.round(numbers)) & ~numpy.isnan(numbers))
    if len(wrong):
        problems = [
            f"{table.where(columns[column], row)}: {numbers[row, column]:g} is not a count"
            for row, column in wrong.tolist()
        ]
        problems[0] += (
            f": task {task} predicts whole numbers >= 0; if it stands for a missing label, add it to dataset.missing"
        )
        raise DataError(list_problems(problems, "cells cannot be used"))


def _indicators(
    table: Columns,
    columns: Sequence[str],
    task: str,
    given: Sequence[str] | None,
    size: int | None,
    separator: str | None,
) -> tuple[list[str], numpy.ndarray, list[str]]:
    """Return the names of a task's labels, which row has which of them [num_rows, num_labels], and sentences."""
    notes: list[str] = []
    if len(columns) > 1:
        names = list(columns)
        indicators, notes = read_yes_no_columns(table, columns, task, given)
    elif separator is None and not all(is_list(text) for text in table.cells[columns[0]].labels):
        raise DataError(
            f"dataset.targets.{task}: task {task} predicts several labels, and {columns[0]!r} is one column; name a "
            f"column for each label, as in dataset.targets.{task}=[a,b], or set dataset.label_separator to what stands "
            f"between the labels in a cell{example_of_separator(table.cells[columns[0]].labels)}"
        )
    else:
        names, indicators = read_lists(table, columns[0], task, separator, given)
    if size is not None and size != len(names):
        raise DataError(
            f"{table.path}: tasks.{task}.num_labels={size}, and there are {len(names)} labels: "
            f"{', '.join(map(item, names))}; tasks.{task}.num_labels=null takes the number from the data"
        )
    return names, indicators, notes


def _find_unlearned(numbers: numpy.ndarray, rows: Rows) -> Iterator[tuple[str, int]]:
    """Yield (split, its first row) of each class that is in val or test and not in train."""
    known = numpy.union1d(numbers[rows["train"]], [_MISSING])
    for name in ("val", "test"):
        found, first = numpy.unique(numbers[rows[name]], return_index=True)
        for row in sorted(first[~numpy.isin(found, known)]):
            yield name, int(rows[name][row])


def _explain_unlearned(labels: Labels, found: Sequence[tuple[str, int]], counted: ClassKind | None) -> str:
    """Return the error of labels that training does not have; `counted` is the task's kind if its size is given."""
    names = list(dict.fromkeys(labels.names[labels.indices[row]] for _, row in found))
    problems = [
        f"{labels.table.where(labels.column, row)}: {labels.names[labels.indices[row]]!r} is in the {split} split and "
        "not in train"
        for split, row in found
    ]
    size = f" tasks.{labels.task}.{SIZE_KEY[counted]}=null" if counted is not None and counted != "binary" else ""
    problems[0] += (
        f". If it is a mistake, correct it; to leave it out: {labels.how_to_leave_out(*names)}{size}; to keep it, as "
        f"an error of every model, name all classes: {labels.how_to_list()}"
    )
    return list_problems(problems, "labels cannot be used")


def _describe_unlearned(indicators: numpy.ndarray, names: Sequence[str], rows: Rows, task: str) -> list[str]:
    """Return a sentence on the labels that no row of training has, while some other row has them."""
    absent = [
        name
        for name, column in zip(names, indicators.T, strict=True)
        if not (column[rows["train"]] == 1).any() and (column == 1).any()
    ]
    if not absent:
        return []
    return [f"task {task}: no row of training has {', '.join(map(repr, absent))}, so that cannot be learned"]
