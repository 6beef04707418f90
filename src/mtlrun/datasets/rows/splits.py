"""The rows of a table in three splits: given by a column, or drawn once."""

from collections.abc import Sequence
from itertools import pairwise
from math import isclose

import numpy

from mtlrun.datasets.base import SPLITS, SplitName
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.datasets.rows.columns import Columns
from mtlrun.errors import DataError

Rows = dict[SplitName, numpy.ndarray]


def check_split_keys(
    split_column: str | None, fractions: Sequence[float], group_column: str | None, stratify: str | None, seed: int
) -> None:
    """Raise ValueError if these keys of a dataset are inconsistent or out of bounds."""
    if len(fractions) != 3 or not all(part > 0 for part in fractions) or not isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(
            f"fractions must be three numbers > 0 that sum to 1 (train, val, test), found {list(fractions)}"
        )
    if seed < 0:
        raise ValueError(f"split_seed must be >= 0, found {seed}")
    if stratify is not None and (split_column is not None or group_column is not None):
        other = "split_column" if split_column is not None else "group_column"
        raise ValueError(f"stratify must be null where {other} is set, found {stratify!r}")


def split_rows(
    table: Columns,
    *,
    split_column: str | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    group_column: str | None = None,
    stratify: str | None = None,
    split_seed: int = 0,
) -> Rows:
    """Return the rows of each split as sorted positions, which depend only on the arguments and the order of the rows.

    Args:
        table: has the columns that the other arguments name.
        split_column: holds train, val or test; then nothing is drawn.
        fractions: of train, val and test.
        group_column: rows with equal values stay together; fractions are met as nearly as the groups allow.
        stratify: a column whose values are equally frequent in all splits; empty cells count as a value.
        split_seed: of the drawing.

    Raises:
        DataError: a column is missing, a value is unknown, a group is in two splits, or a split would be empty.
    """
    for column, key in ((split_column, "split_column"), (group_column, "group_column"), (stratify, "stratify")):
        if column is not None:
            table.require(column, f"dataset.{key}")
    if split_column is not None:
        rows = _read_splits(table, split_column)
        how = f"no row of column {split_column} says"
    elif group_column is not None:
        rows = _draw_groups(_groups(table, group_column), fractions, split_seed)
        how = f"there are too few rows, or groups of column {group_column}, for"
    else:
        strata = [0] * len(table) if stratify is None else _numbered(table.texts(stratify))
        parts = split_by_class(strata, fractions[:2], split_seed)
        rows = dict(zip(SPLITS, parts, strict=True))
        how = f"{len(table)} rows are too few for"
    if stratify is not None:
        _check_strata(table, stratify, rows)
    for name in SPLITS:
        if len(rows[name]) == 0:
            raise DataError(f"{table.path}: the {name} split is empty: {how} {name}")
    if split_column is not None and group_column is not None:
        check_groups(table, group_column, rows)
    return rows


def _read_splits(table: Columns, column: str) -> Rows:
    cells = table.texts(column)
    for row, cell in enumerate(cells):
        if cell not in SPLITS:
            raise DataError(f"{table.where(column, row)}: must be train, val or test, found {cell or ''!r}")
    return {name: numpy.flatnonzero([cell == name for cell in cells]) for name in SPLITS}


def _groups(table: Columns, column: str) -> list[int]:
    cells = table.texts(column)
    if None in cells:
        raise DataError(f"{table.where(column, cells.index(None))}: the cell is empty; every row needs a group")
    return _numbered(cells)


def _numbered(cells: Sequence[str | None]) -> list[int]:
    """Number the values in the order in which they occur."""
    known: dict[str | None, int] = {}
    return [known.setdefault(cell, len(known)) for cell in cells]


def _draw_groups(groups: Sequence[int], fractions: Sequence[float], seed: int) -> Rows:
    """Line up the groups in a random order, cut the line by `fractions`, and assign each group by its midpoint."""
    sizes = numpy.bincount(groups)
    order = numpy.random.default_rng(seed).permutation(len(sizes))
    middles = (numpy.cumsum(sizes[order]) - sizes[order] / 2) / len(groups)
    parts = numpy.empty(len(sizes), dtype=numpy.int64)
    parts[order] = numpy.searchsorted(numpy.cumsum(fractions[:2]), middles)
    return {name: numpy.flatnonzero(parts[numpy.asarray(groups)] == index) for index, name in enumerate(SPLITS)}


def _check_strata(table: Columns, column: str, rows: Rows) -> None:
    cells = numpy.asarray([cell or "" for cell in table.texts(column)])
    for value, count in zip(*numpy.unique(cells, return_counts=True), strict=True):
        lacking = [name for name in SPLITS if not (cells[rows[name]] == value).any()]
        if lacking:
            raise DataError(
                f"{table.path}, column {column}: {str(value)!r} is in {count} of the rows, too few for "
                f"{' and '.join(lacking)} to get one; dataset.stratify needs a column whose values are all frequent"
            )


def check_groups(table: Columns, column: str, rows: Rows, what: str = "group") -> None:
    """Raise DataError if a value of a column is in two splits; `what` describes a value in the message."""
    groups = numpy.asarray(_groups(table, column))
    for first, second in [*pairwise(SPLITS), (SPLITS[0], SPLITS[2])]:
        both = numpy.intersect1d(groups[rows[first]], groups[rows[second]])
        if len(both):
            one, other = (next(row for row in rows[name] if groups[row] == both[0]) for name in (first, second))
            raise DataError(
                f"{table.where(column, int(other))}: the {what} {table.texts(column)[other]!r} is in the {second} "
                f"split here, and in the {first} split by row {table.numbers[one]}"
            )
