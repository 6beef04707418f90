"""The rows of a table in three splits: given by a column or by files, or drawn once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import isclose

import numpy

from mtlrun.config.bounds import CountOrZero, Folds, OpenFraction, Seed, check_fields
from mtlrun.config.shortening import shorten
from mtlrun.datasets.base import SPLITS, SplitName
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.splits.drawing import cut_by_time, deal_folds, draw_groups, draw_rows, number
from mtlrun.datasets.tables.splits.given import EMPTY, check_splits, read_splits, rows_of, write_splits
from mtlrun.datasets.tables.splits.times import read_times
from mtlrun.errors import DataError

#: {split: its rows as sorted positions}.
Rows = dict[SplitName, numpy.ndarray]


@dataclass(frozen=True)
class SplitKeys:
    """The keys of a dataset that say how its rows are divided; conf/dataset/_labels.yaml explains them.

    Raises:
        ValueError: keys are inconsistent or out of bounds.
    """

    split_column: str | None = None
    splits: Mapping[str, SplitName | None] = field(default_factory=dict)
    fractions: Sequence[OpenFraction] = (0.7, 0.15, 0.15)
    group_column: str | None = None
    stratify: Sequence[str] = ()
    time_column: str | None = None
    num_folds: Folds | None = None
    fold: CountOrZero | None = None
    split_seed: Seed = 0
    #: The key that names the files, for messages.
    file_key: str = "path"

    def __post_init__(self) -> None:
        check_fields(self)
        parts = self.fractions
        if len(parts) != 3 or not isclose(sum(parts), 1, abs_tol=1e-6):
            raise ValueError(
                f"fractions must be three numbers > 0 that sum to 1 (train, val, test), found {shorten(parts)}"
            )
        check_splits(self.splits)
        if self.splits and self.split_column is None:
            raise ValueError("splits needs split_column, the column whose values it explains")
        if self.time_column is not None and self.stratify:
            raise ValueError(
                f"stratify must be null where time_column is set, found {', '.join(self.stratify)}: time decides"
            )
        self._check_folds()

    def check_source(self, *, one_file: bool) -> None:
        """Raise ValueError if each split has a file and a key says otherwise."""
        for key in ("split_column", "num_folds"):
            if not one_file and getattr(self, key) is not None:
                raise ValueError(f"{key} must be null where {self.file_key} names a file for each split")

    def _check_folds(self) -> None:
        if self.num_folds is None:
            if self.fold is not None:
                raise ValueError(f"fold must be null without num_folds, as in dataset.num_folds=5, found {self.fold}")
            return
        if self.fold is None or self.fold >= self.num_folds:
            raise ValueError(
                f"fold must be a number from 0 to {self.num_folds - 1} with num_folds={self.num_folds}, found "
                f"{'null' if self.fold is None else self.fold}; a run for each: mtlrun -m study=folds ..."
            )
        if self.split_column is not None:
            raise ValueError(f"num_folds must be null where split_column gives the test split, found {self.num_folds}")
        if self.time_column is not None:
            raise ValueError(
                f"num_folds must be null where time_column is set, found {self.num_folds}: most folds would be trained "
                "on what comes after them"
            )


@dataclass(frozen=True)
class Division:
    """The rows of each split, and sentences for the user on how they came there. Some rows may be in no split."""

    rows: Rows
    notes: list[str]


def split_rows(
    table: Columns,
    keys: SplitKeys | None = None,
    given: Sequence[SplitName | None] | None = None,
    label_columns: Sequence[str] = (),
) -> Division:
    """Divide the rows of a table; the result depends only on the arguments and the order of the rows.

    All three splits are drawn unless a column or files give them. With folds, test is a fold, and val is drawn from the
    others; where train and test are given without val, val is drawn from train.

    Args:
        table: has the columns that the other arguments name.
        keys: how to divide.
        given: the split of each row, if each split is a file.
        label_columns: of classes. If a drawing leaves a label out of train, the first row with it is moved there.

    Raises:
        DataError: a column is missing, a value is unknown, a group is in two splits, or a split would be empty.
    """
    keys = keys or SplitKeys()
    named = {"split_column": keys.split_column, "group_column": keys.group_column, "time_column": keys.time_column}
    for key, column in [*named.items(), *(("stratify", column) for column in keys.stratify)]:
        if column is not None:
            table.require(column, f"dataset.{key}")
    notes: list[str] = []
    if given is None and keys.split_column is not None:
        given = read_splits(table, keys.split_column, keys.splits)
    drawing = Drawing(table, keys)
    movable: list[SplitName] = ["val", "test"]
    if given is not None:
        source = f"dataset.{keys.file_key}" if keys.split_column is None else f"column {keys.split_column}"
        rows, movable = _complete(drawing, given, source, notes)
    elif keys.num_folds is not None:
        rows, movable = _fold(drawing, keys.num_folds, keys.fold or 0, notes), ["val"]
    else:
        rows = dict(zip(SPLITS, drawing.draw(numpy.arange(len(table)), keys.fractions), strict=True))
    if keys.time_column is None:
        for column in label_columns:
            _bring_labels_to_train(drawing, column, rows, movable, notes)
    for name in SPLITS:
        if len(rows[name]) == 0:
            raise DataError(f"{table.path}: the {name} split is empty: {drawing.why_empty}")
    if keys.group_column is not None:
        check_groups(table, keys.group_column, rows, advice="correct one of them, or set dataset.group_column=null")
    notes += [note for column in keys.stratify if movable for note in _lacking(table, column, rows)]
    return Division(rows, notes)


def select_rows(table: Columns, rows: Rows) -> tuple[Columns, Rows]:
    """Return the rows of a table that are in a split, and their positions among these."""
    used = numpy.sort(numpy.concatenate(list(rows.values())))
    if len(used) == len(table):
        return table, rows
    return table.select(used), {name: numpy.searchsorted(used, positions) for name, positions in rows.items()}


class Drawing:
    """The groups, strata and times that rows are drawn by, each read from the table when it is needed."""

    def __init__(self, table: Columns, keys: SplitKeys) -> None:
        self.table, self.keys = table, keys

    @cached_property
    def groups(self) -> numpy.ndarray | None:
        """The group of each row by number; None without groups."""
        column = self.keys.group_column
        return None if column is None else read_groups(self.table, column)

    @cached_property
    def strata(self) -> numpy.ndarray:
        """The values of the columns to stratify by, as numbers, int64 [num_rows, num_columns]."""
        columns = []
        for column in self.keys.stratify:
            values = number(self.table.texts(column))
            if numpy.bincount(numpy.bincount(values)[values])[:3].sum() > len(values) / 2:
                raise DataError(
                    f"{self.table.path}, column {column}: most of its values are in one or two rows, which cannot be "
                    "equally frequent in three splits; dataset.stratify needs a column of few different values, such "
                    "as ranges of these"
                )
            columns.append(values)
        return numpy.stack(columns, axis=1) if columns else numpy.zeros((len(self.table), 0), dtype=numpy.int64)

    @property
    def why_empty(self) -> str:
        """Why there is a split without a row."""
        if self.keys.time_column is not None:
            few = f"column {self.keys.time_column} has too few different times"
            if self.keys.group_column is None:
                return few
            return (
                f"{few}, or the groups of column {self.keys.group_column} overlap in time; divide by one of them: set "
                "dataset.time_column or dataset.group_column to null"
            )
        count = len(self.table) if self.groups is None else len(numpy.unique(self.groups))
        plural = "" if count == 1 else "s"
        many, advice = f"{count} row{plural}", "add rows"
        if self.groups is not None:
            many = f"{count} group{plural} of column {self.keys.group_column}"
            advice = "a group is in one split alone, so name a column with more of them"
        if count < len(SPLITS):
            return f"{many} cannot be divided into {len(SPLITS)} splits; {advice}"
        return f"{many} are too few for this drawing; change dataset.fractions or dataset.split_seed"

    def draw(self, rows: numpy.ndarray, fractions: Sequence[float]) -> list[numpy.ndarray]:
        """Return so many parts of some rows, each as sorted positions."""
        seed = self.keys.split_seed
        if self.keys.time_column is not None:
            groups = None if self.groups is None else self.groups[rows]
            parts = cut_by_time(read_times(self.table, self.keys.time_column)[rows], groups, fractions)
        elif self.groups is not None:
            groups = numpy.unique(self.groups[rows], return_inverse=True)[1]
            parts = draw_groups(groups, self.strata[rows], fractions, seed)
        else:
            parts = draw_rows(self.strata[rows], fractions, seed)
        return [rows[part] for part in parts]

    def draw_validation(self, rows: numpy.ndarray) -> list[numpy.ndarray]:
        """Return train and val as parts of the rows that are not test."""
        train, val, _ = self.keys.fractions
        return self.draw(rows, [train / (train + val), val / (train + val)])


def _complete(
    drawing: Drawing, given: Sequence[SplitName | None], source: str, notes: list[str]
) -> tuple[Rows, list[SplitName]]:
    """Return the rows of splits that are given, val being drawn from train if it is not, and the splits drawn."""
    table, keys = drawing.table, drawing.keys
    rows = rows_of(given)
    left_out = given.count(None)
    if left_out:
        notes.append(f"{source}: {left_out:,} of {len(table):,} rows are left out")
    for name in ("train", "test"):
        if len(rows[name]) == 0:
            others = [other for other in ("val", "test") if len(rows[other])]
            advice = f"; {', '.join(others)} alone cannot be used" if others else ""
            if name == "test" and keys.split_column is not None:
                advice = _without_test(table, keys.split_column, keys.splits, rows["val"])
            raise DataError(f"{table.path}: the {name} split is empty: no row of {source} says {name}{advice}")
    if len(rows["val"]):
        for key in ("stratify", "time_column"):
            if getattr(keys, key):
                raise DataError(f"dataset.{key} must be null: {source} gives train, val and test, so nothing is drawn")
        return rows, []
    before = len(rows["train"])
    rows["train"], rows["val"] = drawing.draw_validation(rows["train"])
    how = f"the last by {keys.time_column}" if keys.time_column else f"drawn by dataset.split_seed={keys.split_seed}"
    notes.append(f"{source} has no val: {len(rows['val']):,} of the {before:,} train rows are val, {how}")
    return rows, ["val"]


def _without_test(table: Columns, column: str, splits: Mapping[str, SplitName | None], val: numpy.ndarray) -> str:
    """Return the end of a message on a column of splits without test: what settles it."""
    if not len(val):
        return "; to draw all splits: dataset.split_column=null" + " dataset.splits=null" * bool(splits)
    cells = table.texts(column)
    values = dict.fromkeys(cells[row] or EMPTY for row in val.tolist())
    kept = {value: name for value, name in splits.items() if name != "val"}
    return f"; to test on the val rows, and draw val from train: {write_splits(kept | dict.fromkeys(values, 'test'))}"


def _fold(drawing: Drawing, num_folds: int, fold: int, notes: list[str]) -> Rows:
    """Return the rows of splits of which test is a fold."""
    table, groups = drawing.table, drawing.groups
    units = len(table) if groups is None else len(numpy.unique(groups))
    if units < num_folds:
        what = "rows" if groups is None else f"groups of column {drawing.keys.group_column}"
        raise DataError(f"{table.path}: {units} {what} are too few for dataset.num_folds={num_folds}")
    folds = deal_folds(groups, drawing.strata, num_folds, drawing.keys.split_seed)
    rest = numpy.setdiff1d(numpy.arange(len(table)), folds[fold])
    train, val = drawing.draw_validation(rest)
    notes.append(f"fold {fold} of 0 to {num_folds - 1} is test; val is drawn from the {len(rest):,} rows of the others")
    return {"train": train, "val": val, "test": folds[fold]}


def _bring_labels_to_train(
    drawing: Drawing, column: str, rows: Rows, movable: Sequence[SplitName], notes: list[str]
) -> None:
    """Move the first row of each label that a drawing left out of train, with its group, to train, in place."""
    table, groups = drawing.table, drawing.groups
    cells = table.texts(column)
    labels = number(cells)
    candidates = numpy.sort(numpy.concatenate([numpy.empty(0, numpy.int64), *(rows[name] for name in movable)]))
    lacking = numpy.setdiff1d(labels[candidates], labels[rows["train"]])
    for label in lacking:
        row = int(candidates[(labels[candidates] == label).argmax()])
        if cells[row] is None or (labels[rows["train"]] == label).any():  # another label has brought it
            continue
        moved = numpy.array([row]) if groups is None else numpy.flatnonzero(groups == groups[row])
        rows["train"] = numpy.union1d(rows["train"], moved)
        for name in movable:
            rows[name] = numpy.setdiff1d(rows[name], moved)
        what = "" if groups is None else ", with its group,"
        notes.append(f"{table.where(column, row)}{what} is in train, since no other row there is {cells[row]!r}")


def _lacking(table: Columns, column: str, rows: Rows) -> list[str]:
    """Return a sentence on the values that are in some splits only; none if there are none."""
    cells = table.texts(column)
    values = number(cells)
    counts = numpy.stack([numpy.bincount(values[rows[name]], minlength=values.max() + 1) for name in SPLITS])
    rare = numpy.flatnonzero((counts == 0).any(axis=0) & (counts > 0).any(axis=0))
    if not len(rare):
        return []
    listing = ", ".join(
        f"{cells[(values == value).argmax()] or ''!r} ({counts[:, value].sum()})" for value in rare[:10]
    ) + (", ..." if len(rare) > 10 else "")
    return [f"column {column}: in too few rows, or groups, to be in every split: {listing}"]


def read_groups(table: Columns, column: str) -> numpy.ndarray:
    """Return the group of each row by number, int64 [num_rows]."""
    cells = table.texts(column)
    if None in cells:
        raise DataError(table.needs_cell(column, cells.index(None), "a group"))
    return number(cells)


def check_groups(table: Columns, column: str, rows: Rows, what: str = "group", advice: str = "") -> None:
    """Raise DataError if a value of a column is in two splits; `what` describes a value, `advice` ends the message."""
    groups = read_groups(table, column)
    for first, second in [*pairwise(SPLITS), (SPLITS[0], SPLITS[2])]:
        both = numpy.intersect1d(groups[rows[first]], groups[rows[second]])
        if len(both):
            one, other = (int(next(row for row in rows[name] if groups[row] == both[0])) for name in (first, second))
            raise DataError(
                f"{table.where(column, other)}: the {what} {table.texts(column)[other]!r} is in the {second} split "
                f"here, and in the {first} split by {table.name(one)}{'; ' if advice else ''}{advice}"
            )
