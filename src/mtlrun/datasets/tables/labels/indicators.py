"""Indicators, which say of each row which of several labels it has: a column for each, or a column of lists."""

import json
from collections.abc import Sequence
from decimal import Decimal

import numpy

from mtlrun.config.listing import item
from mtlrun.datasets.tables.labels.column_labels import YES_NO, Labels, find_labels
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.words import assignment, label_value
from mtlrun.errors import DataError, list_problems

_MEANING: dict[str | Decimal, float] = {
    value: meaning for pair in YES_NO for meaning, value in enumerate(pair) if value != -1
}


def read_yes_no_columns(
    table: Columns, columns: Sequence[str], task: str, given: Sequence[str] | None = None
) -> tuple[numpy.ndarray, list[str]]:
    """Return 0 for no, 1 for yes and NaN for an empty cell, float64 [num_rows, num_columns], and notes for the user.

    Args:
        table, columns: a column for each label of the task.
        task: that is to predict them.
        given: what stands for no and for yes in all columns; None for 0 and 1, no and yes, false and true, -1 and 1,
            and other pairs that are as clear.

    Raises:
        DataError: a column holds something else, or all columns are constant.
    """
    found = [find_labels(table, column, task) for column in columns]
    values = [[label_value(name.casefold()) for name in labels.names] for labels in found]
    numbers = {value for column in values for value in column if isinstance(value, Decimal)}
    if given is not None:
        if len(given) != 2:
            raise DataError(f"dataset.classes.{task} must hold what stands for no and for yes, found {list(given)}")
        meaning = {label_value(name.casefold()): float(index) for index, name in enumerate(given)}
    elif -1 in numbers and 0 not in numbers:
        meaning = {**_MEANING, Decimal(-1): 0.0}
    else:
        meaning = _MEANING
    result = numpy.stack(
        [_read(labels, names, meaning) for labels, names in zip(found, values, strict=True)], axis=1
    )  # fmt: skip
    notes = [f"task {task}: the label -1 is no (0) and 1 is yes (1); -1 is not a missing label"] if (
        given is None and Decimal(-1) in meaning
    ) else []  # fmt: skip
    constant = [labels for labels in found if len(labels.names) == 1]
    if len(constant) == len(found):
        raise DataError(
            f"{table.path}: each of the columns {', '.join(columns)} holds one label only, so task {task} has nothing "
            "to learn; leave the task out"
        )
    notes += [
        f"{labels.where}: every label is {labels.names[0]!r}; metrics of task {task} that need both are means over its "
        "other labels"
        for labels in constant
    ]
    return result, notes


def _read(labels: Labels, values: Sequence[str | Decimal], meaning: dict[str | Decimal, float]) -> numpy.ndarray:
    """Return the numbers of a column, float64 [num_rows]."""
    pairs = [{no, yes} for no, yes in YES_NO]
    consistent = len(values) <= 2 and (len(values) < 2 or set(values) in pairs or set(values) == set(meaning))
    wrong = [name for name, value in zip(labels.names, values, strict=True) if value not in meaning]
    if wrong or not consistent:
        name = wrong[0] if wrong else labels.names[-1]
        row = int(labels.rows(labels.names.index(name))[0])
        raise DataError(
            f"{labels.table.where(labels.column, row)}: {name!r} is neither no nor yes, as the labels of task "
            f"{labels.task} must be; the column has {labels.listing()}. If it stands for a missing label: "
            f"{labels.how_to_leave_out(name)}; to read other words as no and yes: "
            f"{assignment(f'classes.{labels.task}', ['<no>', '<yes>'])}"
        )
    numbers = numpy.array([*(meaning[value] for value in values), numpy.nan])
    chosen: numpy.ndarray = numbers[labels.indices]
    return chosen


def read_lists(
    table: Columns, column: str, task: str, separator: str | None, given: Sequence[str] | None = None
) -> tuple[list[str], numpy.ndarray]:
    """Return the labels that a column of lists names, sorted, and which of them each row has.

    An empty cell is a missing label of the whole row; a list without labels, which is `[]` or a separator alone, is no
    for all of them.

    Args:
        table, column: where the lists are: `cat;dog`, or lists of Parquet, which are read as `["cat", "dog"]`.
        task: that is to predict them.
        separator: between the labels of a cell.
        given: the labels in their order; None to sort them.

    Returns:
        The labels, and float64 [num_rows, num_labels] of 0, 1 and NaN.

    Raises:
        DataError: there are fewer than two labels, or one is not in `given`.
    """
    cells = [None if cell is None else split_list(cell, separator) for cell in table.texts(column)]
    found = {label_value(name): name for cell in cells for name in sorted(cell or (), reverse=True)}
    if given is None:
        numeric = all(isinstance(value, Decimal) for value in found)
        names = [found[value] for value in sorted(found, key=None if numeric else lambda value: found[value])]
    else:
        names = list(given)
    index = {label_value(name): number for number, name in enumerate(names)}
    key = f"dataset.classes.{task}"
    foreign: dict[str, int] = {}  # with the first row of each
    for row, cell in enumerate(cells):
        for name in cell or ():
            if label_value(name) not in index:
                foreign.setdefault(name, row)
    if foreign:
        problems = [f"{table.where(column, row)}: {name!r} is none of {key}" for name, row in foreign.items()]
        problems[0] += f": {', '.join(map(item, names))}; add it"
        raise DataError(list_problems(problems, "labels cannot be used"))
    absent = [name for name in names if label_value(name) not in found]
    if absent:
        raise DataError(
            f"{table.path}, column {column}: no cell holds {', '.join(map(repr, absent))} of {key}; leave that out"
        )
    if len(names) < 2:
        raise DataError(
            f"{table.path}, column {column}: a list of labels needs two or more different ones for task {task}, found "
            f"{', '.join(map(repr, names)) or 'none'}; set dataset.label_separator to what stands between labels"
        )
    result = numpy.zeros((len(cells), len(names)))
    for row, cell in enumerate(cells):
        if cell is None:
            result[row] = numpy.nan
        else:
            result[row, [index[label_value(name)] for name in cell]] = 1
    return names, result


def split_list(cell: str, separator: str | None) -> list[str]:
    """Return the labels in a cell: those of a list of Parquet, which is read as JSON, or between separators."""
    if is_list(cell):
        parts = [str(part) for part in json.loads(cell) if part is not None]
    else:
        parts = cell.split(separator) if separator is not None else [cell]
    return [part.strip() for part in parts if part.strip()]


def is_list(cell: str) -> bool:
    """Return True if a cell is a list in JSON, as those of Parquet are read."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return False
    try:
        return isinstance(json.loads(cell), list)
    except ValueError:
        return False


def example_of_separator(cells: Sequence[str]) -> str:
    """Return how to set the separator that probably stands between the labels of these cells, or an empty text."""
    found = next((separator for separator in ";|,/ " if any(separator in cell for cell in cells)), None)
    return "" if found is None else f", as in 'dataset.label_separator=\"{found}\"'"
