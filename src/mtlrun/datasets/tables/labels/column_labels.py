"""Labels of columns: which there are, in which order, and the number of each cell's label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy

from mtlrun.config.listing import item
from mtlrun.datasets.tables.labels.levels import order_of_levels
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.missing import is_usual
from mtlrun.datasets.tables.words import assignment, label_value
from mtlrun.errors import DataError, list_problems

_PAIRS = (
    ("0", "1"), ("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("off", "on"), ("negative", "positive"),
    ("neg", "pos"), ("absent", "present"), ("nein", "ja"), ("nee", "ja"), ("nej", "ja"), ("non", "oui"), ("no", "sí"),
    ("no", "si"), ("no", "sì"), ("não", "sim"), ("нет", "да"), ("否", "是"), ("-1", "1"),
)  # fmt: skip
#: (no, yes) as people write them, as values to compare by.
YES_NO = tuple((label_value(no), label_value(yes)) for no, yes in _PAIRS)

_LISTED = 12  # labels at most in a message


@dataclass(frozen=True)
class Labels:
    """The labels of a column.

    Args:
        table, column: where they were found.
        task: that is to predict them.
        names: the different labels, as in the file: numbers by value, texts in the file's order or the alphabet's.
        indices: for each row its label's place in `names`, -1 for an empty cell, int64 [num_rows].
        ordered: whether the order is in the data: all labels are numbers, or the file keeps an order.
        respelled: {name: other texts of the same number}.
    """

    table: Columns
    column: str
    task: str
    names: list[str]
    indices: numpy.ndarray
    ordered: bool
    respelled: Mapping[str, list[str]]

    @property
    def where(self) -> str:
        """The column in words."""
        return f"{self.table.path}, column {self.column}"

    def rows(self, index: int) -> numpy.ndarray:
        """Return the positions of the rows with a label."""
        return numpy.flatnonzero(self.indices == index)

    def listing(self) -> str:
        """Return the labels with the number of rows of each, in words."""
        counts = numpy.bincount(self.indices[self.indices >= 0], minlength=len(self.names))
        shown = [f"{item(name)} ({count:,})" for name, count in zip(self.names, counts, strict=True)]
        if len(shown) > _LISTED:
            shown = [*shown[: _LISTED - 1], "...", shown[-1]]
        return ", ".join(shown)

    def arrange(self, order: Sequence[int]) -> "Labels":
        """Return the labels in another order: `order` has their present places."""
        places = numpy.empty(len(order) + 1, dtype=numpy.int64)
        places[list(order)] = numpy.arange(len(order))
        places[-1] = -1
        names = [self.names[index] for index in order]
        return replace(self, names=names, indices=places[self.indices], ordered=True)

    def how_to_list(self) -> str:
        """Return the word of a command line that gives the labels, for the user to arrange."""
        return assignment(f"classes.{self.task}", self.names)

    def how_to_leave_out(self, *names: str) -> str:
        """Return the word of a command line that makes labels missing, besides what is missing now."""
        return assignment("missing", dict.fromkeys([*self.table.missing_texts, *names]))

    def suspects(self) -> list[str]:
        """Return the labels that usually stand for a missing one: some words, and -1 beside numbers from 0 on."""
        words = [name for name in self.names if is_usual(name)]
        values = [label_value(name) for name in self.names]
        numbers = [value for value in values if isinstance(value, Decimal)]
        if len(numbers) == len(values) and min(numbers) == -1 and 0 in numbers and not any(-1 < n < 0 for n in numbers):
            words.append(self.names[values.index(Decimal(-1))])
        return words


def find_labels(table: Columns, column: str, task: str) -> Labels:
    """Return the labels of a column; numbers of the same value are one label.

    Raises:
        DataError: every cell is empty.
    """
    cells = table.cells[column]
    spellings: dict[str | Decimal, list[str]] = {}
    for text in cells.labels:
        spellings.setdefault(label_value(text), []).append(text)
    if not spellings:
        raise DataError(f"{table.path}, column {column}: every cell is empty, so task {task} has no label")
    kept = {label_value(name.strip()): place for place, name in enumerate(table.order(column) or [])}
    values = list(spellings)
    numeric = all(isinstance(value, Decimal) for value in values)
    if kept:
        values.sort(key=lambda value: kept[value])
    elif numeric:
        values.sort()  # so that 10 comes after 2
    else:
        values.sort(key=str)
    index = {text: place for place, value in enumerate(values) for text in spellings[value]}
    places = numpy.array([*(index[text] for text in cells.labels), -1], dtype=numpy.int64)
    names = [min(spellings[value], key=lambda name: (len(name), name)) for value in values]
    respelled = {
        name: sorted({*spellings[value]} - {name})
        for name, value in zip(names, values, strict=True)
        if len(spellings[value]) > 1
    }
    return Labels(table, column, task, names, places[cells.indices], bool(kept) or numeric, respelled)


def arrange_as_given(labels: Labels, given: Sequence[str]) -> Labels:
    """Return the labels in the order of `dataset.classes`.

    Raises:
        DataError: a label of the file is not given, or one that is given is not in the file.
    """
    key = f"dataset.classes.{labels.task}"
    places = {label_value(name): place for place, name in enumerate(labels.names)}
    values = [label_value(name) for name in given]
    foreign = [name for value, name in zip(places, labels.names, strict=True) if value not in values]
    if foreign:
        rows = [int(labels.rows(labels.names.index(name))[0]) for name in foreign]
        found = [f"{labels.table.where(labels.column, row)}: {name!r}" for row, name in zip(rows, foreign, strict=True)]
        advice = (
            f"is none of {key}: {', '.join(map(item, given))}; add it there, or make it a missing label: "
            f"{labels.how_to_leave_out(*foreign)}"
        )
        problems = [f"{found[0]} {advice}", *(f"{other} likewise" for other in found[1:])]
        raise DataError(list_problems(problems, "labels cannot be used"))
    absent = [name for name, value in zip(given, values, strict=True) if value not in places]
    if absent:
        raise DataError(
            f"{labels.where}: no cell holds {', '.join(map(repr, absent))} of {key}; leave that out. Labels found: "
            f"{labels.listing()}"
        )
    return labels.arrange([places[value] for value in values])


def arrange_levels(labels: Labels) -> Labels:
    """Return the labels of an ordinal task in the order that the data or their meaning give.

    Raises:
        DataError: neither gives an order.
    """
    if labels.ordered:
        return labels
    known = order_of_yes_no(labels.names) or order_of_levels(labels.names)
    if known is not None:
        return labels.arrange(known)
    raise DataError(
        f"{labels.where}: the order of the levels of task {labels.task} is not in the data; bring them into "
        f"order, from the lowest to the highest, in {labels.how_to_list()}, where they are sorted by the alphabet. "
        f"Labels found: {labels.listing()}{advise_missing(labels)}"
    )


def order_of_yes_no(names: Sequence[str]) -> list[int] | None:
    """Return the places of no and yes among two labels; None if it is not certain which is which."""
    values = [label_value(name.casefold()) for name in names]
    return next(([values.index(no), values.index(yes)] for no, yes in YES_NO if {no, yes} == set(values)), None)


def advise_missing(labels: Labels) -> str:
    """Return a sentence on labels that may stand for missing ones, or an empty text."""
    suspects = labels.suspects()
    if not suspects:
        return ""
    row = min(int(labels.rows(labels.names.index(name))[0]) for name in suspects)
    return (
        f"; if {' and '.join(map(repr, suspects))} (first in row {labels.table.numbers[row]}) stands for a missing "
        f"label: {labels.how_to_leave_out(*suspects)}"
    )
