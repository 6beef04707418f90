"""Classes from a column: its labels in the order of the class indices, or the reason why they cannot be classes."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from mtlrun.config.suggest import suggest
from mtlrun.datasets.tables.labels.column_labels import (
    Labels,
    advise_missing,
    arrange_as_given,
    arrange_levels,
    find_labels,
    order_of_yes_no,
)
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.words import assignment_of_label, label_value
from mtlrun.errors import DataError

#: What a task makes of its labels: one of several classes, of ordered levels, or yes or no.
ClassKind = Literal["classes", "levels", "binary"]

#: The key of a task for the number of its labels.
SIZE_KEY: dict[ClassKind, str] = {"classes": "num_classes", "levels": "num_levels"}


def read_classes(
    table: Columns,
    column: str,
    task: str,
    kind: ClassKind,
    given: Sequence[str] | None = None,
    size: int | None = None,
    positive: str | None = None,
) -> tuple[Labels, list[str]]:
    """Return the labels of a column in the order of their class indices, and sentences on what is not obvious of them.

    Args:
        table, column: where the labels are.
        task: that is to predict them.
        kind: of the task.
        given: the labels in their order; None to take that of the data: numbers by value, texts as the file keeps them,
            no before yes, levels as their words say, other texts by the alphabet, which is no order of levels.
        size: how many labels the task expects; None if any.
        positive: the label of a binary task that is yes; None for the second one.

    Raises:
        DataError: the labels do not suit the task, or their order is not known.
    """
    labels = find_labels(table, column, task)
    if given is not None:
        labels = arrange_as_given(labels, given)
    if len(labels.names) == 1:
        raise DataError(
            f"{labels.where}: every label is {labels.names[0]!r}, so task {task} has nothing to learn; leave the task "
            f"out, or choose another column: dataset.targets.{task}=<column>"
        )
    _check_number(labels, kind, size)
    suspects = [name for name in labels.suspects() if label_value(name) != -1]
    if suspects and given is None and size is None:
        raise DataError(
            f"{labels.where}: {' and '.join(map(repr, suspects))} among the labels of task {task}: "
            f"{labels.listing()}{advise_missing(labels)}; to keep {'it' if len(suspects) == 1 else 'them'}, list all "
            f"labels: {labels.how_to_list()}"
        )
    notes = [
        f"{labels.where}: {', '.join(map(repr, others))} and {name!r} are one label, as the same number"
        for name, others in labels.respelled.items()
    ]
    if positive is not None:
        labels = _arrange_positive(labels, positive, given)
    elif given is None:
        known = order_of_yes_no(labels.names)
        if kind == "levels":
            labels = arrange_levels(labels)
        elif kind == "binary" and not labels.ordered and known is None:
            notes.append(
                f"task {task}: {labels.names[1]!r} is yes (1) and {labels.names[0]!r} is no (0), by the alphabet; for "
                f"the other order: {assignment_of_label(f'tasks.{task}.positive', labels.names[0])}"
            )
        elif kind == "binary" and known is not None:
            labels = labels.arrange(known)
        elif kind == "binary" and label_value(labels.names[1]) == 0:
            raise DataError(
                f"{labels.where}: the labels of task {task} are {labels.listing()}, and 0 would be yes; write which "
                f"one is: {assignment_of_label(f'tasks.{task}.positive', labels.names[1])}{advise_missing(labels)}"
            )
        notes += _describe_numbers(labels, kind)
        if labels.suspects():
            notes.append(f"{labels.where}: the labels are {labels.listing()}{advise_missing(labels)}")
    return labels, notes


def _arrange_positive(labels: Labels, positive: str, given: Sequence[str] | None) -> Labels:
    """Return two labels with the positive one last.

    Raises:
        DataError: there is no such label, or `dataset.classes` has it first.
    """
    key, values = f"tasks.{labels.task}.positive={positive}", [label_value(name) for name in labels.names]
    if label_value(positive) not in values:
        raise DataError(
            f"{labels.where}: no cell holds the label of {key}; {suggest(positive, labels.names, 'labels found')}"
        )
    place = values.index(label_value(positive))
    if given is not None and place == 0:
        raise DataError(f"{key}: dataset.classes.{labels.task} has it first, as no; leave one of these keys out")
    return labels.arrange([1 - place, place])


def _check_number(labels: Labels, kind: ClassKind, size: int | None) -> None:
    """Raise DataError if there are more or fewer labels than the task has classes."""
    found, task = len(labels.names), labels.task
    if kind == "binary":
        if found > 2:
            raise DataError(
                f"{labels.where}: task {task} is binary, and the column has {found} labels: "
                f"{labels.listing()}{advise_missing(labels)}; for more than two classes: "
                f"+task@tasks.{task}=classification"
            )
    elif size is not None and size != found:
        key = f"tasks.{task}.{SIZE_KEY[kind]}"
        raise DataError(
            f"{labels.where}: {key}={size}, and the column has {found} labels: {labels.listing()}"
            f"{advise_missing(labels)}; {key}=null takes the number from the data"
        )


def _describe_numbers(labels: Labels, kind: ClassKind) -> list[str]:
    """Return a sentence on numeric labels that are not the class indices themselves, or none."""
    values = [label_value(name) for name in labels.names]
    if not all(isinstance(value, Decimal) for value in values) or values == list(range(len(values))):
        return []
    if values == [-1, 1]:
        return [f"task {labels.task}: the label -1 is no (0) and 1 is yes (1); -1 is not a missing label"]
    if kind == "binary":
        no, yes = labels.names
        return [f"task {labels.task}: the label {no} is no (0) and {yes} is yes (1), by value"]
    listing = ", ".join(f"{name} is {index}" for index, name in enumerate(labels.names[:12]))
    return [f"task {labels.task}: the labels are numbered by value: {listing}{', ...' if len(values) > 12 else ''}"]
