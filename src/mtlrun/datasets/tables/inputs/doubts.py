"""Doubts about the inputs of a table: columns that number or name the rows, and columns that give a target away."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy
from torch import Tensor

from mtlrun.datasets.tables.inputs.kinds import Inputs
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.words import assignment

# What holds for fewer rows may be chance.
_FEWEST_ROWS = 20
# Of training, rows are looked at for this many cells, but not for more than so many rows.
_MOST_CELLS, _MOST_ROWS = 1_000_000, 5000
# Whole numbers drawn at random would repeat so often; the probability that none of them does is below exp(-8).
_REPETITIONS = 8
# A correlation beyond this is that of two numbers of which one is made from the other.
_CORRELATION = 0.9999


@dataclass(frozen=True)
class _Values:
    """Numbers, or numbers of texts, of some rows.

    Args:
        values: [rows].
        empty: which of them are missing, bool [rows].
    """

    values: numpy.ndarray
    empty: numpy.ndarray

    @cached_property
    def codes(self) -> numpy.ndarray:
        """The same number, from 0 on, for equal values, [rows]."""
        return numpy.unique(self.values, return_inverse=True)[1]

    @cached_property
    def order(self) -> numpy.ndarray:
        """The rows from the lowest value to the highest."""
        return numpy.argsort(self.values, kind="stable")


@dataclass(frozen=True)
class _Target(_Values):
    """A target, or one of several numbers or labels that are one.

    Args:
        are_classes: whether it is a class, or a yes or no.
    """

    are_classes: bool = field(kw_only=True)


def doubt_inputs(
    table: Columns,
    inputs: Inputs,
    targets: Mapping[str, Tensor],
    classes: Mapping[str, Sequence[str]],
    train: numpy.ndarray,
    named: Sequence[str] | None,
    excluded: Sequence[str],
) -> list[str]:
    """Return a line on columns that number or name the rows, and one for each task whose target inputs give away.

    Args:
        table: with the columns.
        inputs: which of them are inputs.
        targets: {task: targets of all rows}.
        classes: {task: labels} of the tasks that predict classes or several labels.
        train: positions of the rows of training.
        named: `dataset.inputs`.
        excluded: `dataset.exclude`.
    """
    most = min(_MOST_ROWS, max(_MOST_CELLS // max(1, len(inputs.kinds)), 10 * _FEWEST_ROWS))
    rows = train[:: math.ceil(len(train) / most)]
    if len(rows) < _FEWEST_ROWS:
        return []
    columns = {column: _values(table, inputs, column) for column in inputs.kinds}
    chosen = {column: _Values(found.values[rows], found.empty[rows]) for column, found in columns.items()}
    lines = []
    names = [column for column in columns if _names_rows(columns[column], chosen[column])]
    if names:
        each = "columns " if len(names) > 1 else "column "
        lines.append(
            f"{each}{', '.join(names)} of the inputs: another value in each row, as an id, a running number or a name "
            f"has, says nothing of new rows; {_leave_out(names, named, excluded)}; or name the rows by it: "
            f"dataset.id_column={names[0]}"
        )
        times = [column for column in names if inputs.kinds[column] != "text" and _grows(columns[column])]
        if times:
            lines[-1] += f"; or, if it is a time, test on the future: dataset.time_column={times[0]}"
    for task, target in targets.items():
        numbers = target.numpy()[rows].reshape(len(rows), -1).T
        parts = [
            _Target(part, part < 0 if task in classes else numpy.isnan(part), are_classes=task in classes)
            for part in numbers
        ]
        why = {column: next(filter(None, (_gives_away(chosen[column], part, inputs.kinds[column] == "text")
                                          for part in parts)), "") for column in columns}  # fmt: skip
        found = [column for column, reason in why.items() if reason]
        if found:
            listing = "; ".join(f"{column} ({why[column]})" for column in found)
            known = "they are" if len(found) > 1 else "it is"
            lines.append(
                f"task {task}: inputs that give its target away: {listing}; unless {known} known before the target is, "
                f"{_leave_out(found, named, excluded)}"
            )
    return lines


def _leave_out(columns: Sequence[str], named: Sequence[str] | None, excluded: Sequence[str]) -> str:
    """Return in words how columns are made no inputs; see `doubt_inputs`."""
    them = "them" if len(columns) > 1 else "it"
    if named is not None:
        return f"take {them} out of dataset.inputs"
    return f"leave {them} out: {assignment('exclude', dict.fromkeys([*excluded, *columns]))}"


def _values(table: Columns, inputs: Inputs, column: str) -> _Values:
    """Return a column of the inputs; its texts are numbered."""
    kind, cells = inputs.kinds[column], table.cells[column]
    if kind == "text":
        return _Values(cells.indices, cells.indices < 0)
    values = inputs.dates[column] if kind == "date" else cells.numbers
    return _Values(values, numpy.isnan(values))


# ------------------------------------------------------------------------------------------ names of rows


def _names_rows(column: _Values, chosen: _Values) -> bool:
    """Return True if a column differs in every row, and that is no chance.

    Measurements with decimals differ in every row, too, and so do whole numbers from a wide range.

    Args:
        column: all its rows.
        chosen: some of them; to look at all takes longer.
    """
    for part in (chosen, column):
        there = part.values[~part.empty]
        if len(there) < _FEWEST_ROWS or (there != numpy.round(there)).any() or len(numpy.unique(there)) < len(there):
            return False
    if numpy.issubdtype(there.dtype, numpy.integer):  # numbers of texts
        return True
    return len(there) ** 2 / (2 * (numpy.ptp(there) + 1)) >= _REPETITIONS or _grows(column)


def _grows(column: _Values) -> bool:
    """Return True if a column is larger in each row than in the row before, or smaller in each."""
    steps = numpy.diff(column.values[~column.empty])
    return bool((steps > 0).all() or (steps < 0).all())


# ------------------------------------------------------------------------------------------ targets that are given away


def _gives_away(column: _Values, target: _Target, is_text: bool) -> str:
    """Return in words how a column determines a target, or an empty text."""
    labeled = ~target.empty
    if target.are_classes and _determines(column.empty[labeled].astype(numpy.int64), target.codes[labeled]):
        return "whether it is empty says which class it is"
    there = labeled & ~column.empty
    if there.sum() < _FEWEST_ROWS:
        return ""
    if _determines(column.codes[there], target.codes[there]):
        return "all rows with one of its values have the same target"
    if is_text:
        return ""
    order = column.order[there[column.order]]
    if target.are_classes:
        return "it separates the classes without an error" if _separates(column, target, order) else ""
    return "the one is made from the other" if _follows(column.values[order], target.values[order]) else ""


def _determines(found: numpy.ndarray, wanted: numpy.ndarray) -> bool:
    """Return True if all rows of equal cells have the same target.

    With few rows for each of the cells, or with few rows of other targets than the most frequent one, that may be
    chance.

    Args:
        found, wanted: numbers of the cells, and of the targets, from 0 on, [rows].
    """
    values, targets = numpy.bincount(found), numpy.bincount(wanted)
    if not 1 < (values > 0).sum() <= len(found) / 10 or len(wanted) - targets.max() < _FEWEST_ROWS / 2:
        return False
    one = numpy.empty(len(values), dtype=wanted.dtype)
    one[found] = wanted
    return bool((one[found] == wanted).all())


def _separates(column: _Values, target: _Target, order: numpy.ndarray) -> bool:
    """Return True if each class is an interval of the column's numbers, and has enough rows.

    Args:
        column, target: of all rows.
        order: the rows that have both, by the column.
    """
    classes, numbers = target.codes[order], column.values[order]
    ends = numpy.flatnonzero(classes[1:] != classes[:-1])
    counts = numpy.bincount(classes)
    counts = counts[counts > 0]
    intervals = len(ends) == len(counts) - 1 > 0 and counts.min() >= _FEWEST_ROWS
    return bool(intervals and (numbers[ends + 1] > numbers[ends]).all())


def _follows(found: numpy.ndarray, wanted: numpy.ndarray) -> bool:
    """Return True if two numbers are proportional but for rounding, or one grows, or falls, wherever the other grows.

    Args:
        found: in rising order, [rows].
        wanted: of the same rows.
    """
    differ = numpy.diff(found) > 0
    steps = numpy.diff(wanted)
    if min(differ.sum(), (steps != 0).sum()) < _FEWEST_ROWS / 2:
        return False
    ordered = bool((steps >= 0).all() or (steps <= 0).all())
    return ordered or bool(abs(numpy.corrcoef(found, wanted)[0, 1]) > _CORRELATION)
