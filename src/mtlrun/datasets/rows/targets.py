"""Targets from a table: columns become class indices or numbers, depending on the kind of each task."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor

from mtlrun.config.instantiate import locate
from mtlrun.datasets.rows.columns import Columns
from mtlrun.datasets.rows.splits import Rows
from mtlrun.datasets.rows.words import Label, label_text, label_value
from mtlrun.errors import DataError

_MISSING = -1


@dataclass(frozen=True)
class Targets:
    """The targets of all rows of a table.

    Args:
        columns: {task: its columns}, of all known tasks, trained or not: none of them is an input.
        tensors: {task: one target per row}, of the tasks that are trained.
        classes: {task: labels in the order of their class indices}.
        scales: {task: (mean, standard deviation)} of standardized targets, each [num_columns].
        notes: sentences for the user.
    """

    columns: dict[str, list[str]]
    tensors: dict[str, Tensor]
    classes: dict[str, list[str]]
    scales: dict[str, tuple[Tensor, Tensor]]
    notes: list[str] = field(default_factory=list)


def check_target_keys(
    tasks: Sequence[str],
    kinds: Sequence[str],
    classes: Mapping[str, Sequence[Label]],
    standardize_targets: Sequence[str],
) -> None:
    """Raise ValueError if these keys of a dataset are inconsistent or out of bounds."""
    if not tasks:
        raise ValueError(
            "tasks must name one or more tasks, found none; add them by +task@tasks.<column>=regression or "
            "+task@tasks.<column>=classification tasks.<column>.num_classes=3"
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
    for task in standardize_targets:
        if task not in tasks:
            raise ValueError(f"standardize_targets must name tasks ({', '.join(tasks)}), found {task!r}")


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
        columns[task][0] for task, kind in tasks.items() if predicts_classes(task, kind) and len(columns[task]) == 1
    ]
    return list(dict.fromkeys(single))


def read_targets(
    table: Columns,
    rows: Rows,
    tasks: Mapping[str, str],
    targets: Mapping[str, list[str]],
    classes: Mapping[str, Sequence[Label]],
    standardize_targets: Sequence[str] = (),
    *,
    refuse_unlearned: bool = True,
) -> Targets:
    """Read the targets of all rows.

    Args:
        table: with the columns.
        rows: of each split; scales are those of training.
        tasks: {task: importable name of its class}.
        targets: {task: its columns}; the default is the column of the task's name.
        classes: {task: labels in the order of their indices}; the default is all labels of the file, sorted.
        standardize_targets: tasks whose numbers get mean 0 and standard deviation 1 in training.
        refuse_unlearned: refuse labels that training does not have, except those in `classes`.

    Raises:
        DataError: a column is missing, or a cell does not suit its task.
    """
    result = Targets(name_columns(table, list(tasks), targets), {}, {}, {})
    for task, kind in tasks.items():
        columns = result.columns[task]
        if task in classes or predicts_classes(task, kind):
            if len(columns) != 1:
                raise DataError(f"dataset.targets.{task}: classes are read from one column, found {columns}")
            given = [label_text(label, f"classes.{task}") for label in classes[task]] if task in classes else None
            labels, numbers = result.classes[task], result.tensors[task] = _classes(table, columns[0], given)
            for name, row in _find_unlearned(numbers, rows):
                label = labels[int(numbers[row])]
                if given is None and refuse_unlearned:
                    raise DataError(_explain_unlearned(table, columns[0], name, row, task, labels))
                result.notes.append(
                    f"{table.where(columns[0], row)}: {label!r} is in the {name} split and not in train, so every "
                    f"prediction for task {task} is wrong there"
                )
            if task in standardize_targets:
                raise DataError(f"dataset.standardize_targets: task {task} predicts classes, and these have no scale")
            continue
        numbers = torch.tensor(numpy.stack([table.floats(column) for column in columns], axis=1))
        if task in standardize_targets:
            train = numbers[torch.from_numpy(rows["train"])]
            mean, std = train.nanmean(dim=0), (train - train.nanmean(dim=0)).square().nanmean(dim=0).sqrt()
            if not (std > 0).all():
                raise DataError(f"dataset.standardize_targets: task {task} has no two different values in training")
            result.scales[task] = mean, std
            numbers = (numbers - mean) / std
        result.tensors[task] = numbers.float().squeeze(1) if len(columns) == 1 else numbers.float()
    return result


def predicts_classes(task: str, kind: str) -> bool:
    """Return True if a kind of task takes class indices: it has a number of classes or levels, or it is binary."""
    target = locate(kind, f"tasks.{task}._target_")
    counted = {"num_classes", "num_levels"} & set(inspect.signature(target).parameters)
    return bool(counted) or getattr(target, "__name__", "") == "BinaryClassification"


def _classes(table: Columns, column: str, given: list[str] | None) -> tuple[list[str], Tensor]:
    cells = table.texts(column)
    labels = _sorted({cell for cell in cells if cell is not None}) if given is None else given
    index = {label_value(label): number for number, label in enumerate(labels)}
    values = [None if cell is None else label_value(cell) for cell in cells]
    for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
        if value is not None and value not in index:
            raise DataError(f"{table.where(column, row)}: {cell!r} is none of dataset.classes: {', '.join(labels)}")
    numbers = numpy.array([_MISSING if value is None else index[value] for value in values], dtype=numpy.int64)
    return labels, torch.from_numpy(numbers)


def _find_unlearned(numbers: Tensor, rows: Rows) -> Iterator[tuple[str, int]]:
    """Yield (split, its first row) of each class that is in val or test and not in train."""
    array = numbers.numpy()
    known = numpy.union1d(array[rows["train"]], [_MISSING])
    for name in ("val", "test"):
        found, first = numpy.unique(array[rows[name]], return_index=True)
        for row in sorted(first[~numpy.isin(found, known)]):
            yield name, int(rows[name][row])


def _explain_unlearned(table: Columns, column: str, split: str, row: int, task: str, labels: Sequence[str]) -> str:
    label = table.texts(column)[row]
    plain = re.compile(r"[A-Za-z_]\w*|-?\d+", re.ASCII)
    words = {"true", "false", "null", "nan", "inf"}
    listing = ",".join(
        name if plain.fullmatch(name) and name.lower() not in words else json.dumps(name, ensure_ascii=False)
        for name in labels
    )
    return (
        f"{table.where(column, row)}: {label!r} is in the {split} split and not in train. If it is a mistake, correct "
        f"it; to leave it out, add {label!r} to dataset.missing; to keep it, as an error of every model, name all "
        f"classes: '+dataset.classes.{task}=[{listing}]'"
    )


def _sorted(labels: set[str]) -> list[str]:
    """Sort labels, as numbers if all are numbers, so that 10 comes after 2."""
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)
