"""Columns of inputs: which there are, what kind each is, and one message about all that cannot be used as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy

from mtlrun.config.suggest import suggest
from mtlrun.datasets.tables.inputs.categories import Categories, Encoding, HashBuckets, buckets_of, find_categories
from mtlrun.datasets.tables.inputs.scaling import Scale
from mtlrun.datasets.tables.reading.advice import examine, missing_entries, override, write_formats
from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.reading.dates import find_formats, look_like_dates, to_days
from mtlrun.datasets.tables.reading.missing import is_usual
from mtlrun.errors import DataError

Kind = Literal["number", "date", "text"]
# More problems than this are counted, not listed.
_LISTED = 20


@dataclass(frozen=True)
class InputKeys:
    """The keys of a table that are about its inputs; see `Table`."""

    inputs: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    categorical: Sequence[str] = ()
    dates: Mapping[str, str | None] = field(default_factory=dict)
    scale: Scale = "standard"
    encoding: Encoding = "one_hot"
    max_categories: int = 100
    min_category_rows: int = 1
    hash_buckets: HashBuckets = None

    def categories(self, column: str, cells: Cells, train: numpy.ndarray) -> Categories:
        """Return the categories of a column of texts."""
        buckets = buckets_of(column, count_texts(cells.indices[train]), self.hash_buckets)
        return find_categories(cells, train, buckets, self.min_category_rows)


@dataclass(frozen=True)
class Inputs:
    """The columns of the input.

    Args:
        kinds: {column: its kind}, in the order of the features.
        categories: {column: its categories} of texts.
        dates: {column: days since 1970-01-01, float64 [num_rows]}, NaN for an empty cell.
        formats: {column: the format of its dates}.
        empty: columns without a cell that is not empty, which are left out.
        rare: columns of texts that are too rare to be categories, or all different, which are left out if categories
            are indices.
    """

    kinds: dict[str, Kind]
    categories: dict[str, Categories]
    dates: dict[str, numpy.ndarray]
    formats: dict[str, str | None]
    empty: list[str]
    rare: list[str]


class _Problems:
    """The problems of all columns, and the overrides that settle them."""

    def __init__(self, table: Columns, keys: InputKeys) -> None:
        self._table, self._keys = table, keys
        self.lines: list[str] = []
        self._columns: list[str] = []
        self._categorical: list[str] = []
        self._dates: dict[str, str] = {}
        self._notations: list[str] = []
        self._missing: list[str] = []
        self._most_categories = 0

    def examine(self, column: str, categories: Categories) -> None:
        """Add the problem of a column of texts, if it has one."""
        found = examine(self._table.cells[column], self._table.notation, self._table.numbers)
        few = self.are_few(categories)
        if found is not None:
            self.add(column, found.what)
            if found.may_be_categories and few:
                self._categorical.append(column)
            if found.date_formats:
                self._dates[column] = found.date_formats[0] if len(found.date_formats) > 1 else ""
            if found.notations:
                self._notations.append(" or ".join(found.notations))
            self._missing += found.missing
        elif not few:
            self.add_many(column, categories)

    def are_few(self, categories: Categories) -> bool:
        """Return True if there are not too many categories; embeddings take any number of them."""
        return self._keys.encoding == "index" or len(categories.labels) <= self._keys.max_categories

    def add_many(self, column: str, categories: Categories) -> None:
        """Add that a column has too many categories."""
        num_categories, cells = len(categories.labels), self._table.cells[column]
        self.add(
            column,
            f"{num_categories} different texts in training, such as {cells.labels[0]!r}, more than "
            f"dataset.max_categories={self._keys.max_categories}",
        )
        self._most_categories = max(self._most_categories, num_categories)

    def add(self, column: str, what: str) -> None:
        """Add a problem that leaving the column out settles."""
        self._columns.append(column)
        self.lines.append(what)

    def raise_if_any(self) -> None:
        """Raise DataError if there are problems, with what settles them."""
        if not self.lines:
            return
        keys, number = self._keys, len(self.lines)
        exclude = override("exclude", _union(keys.exclude, self._columns))
        ways = [f"to leave {'them all' if number > 1 else 'it'} out: {exclude}"]
        ways += [f"numbers in this notation: {text}" for text in dict.fromkeys(self._notations)]
        if self._missing:
            entries = missing_entries(self._table.missing_texts, dict.fromkeys(self._missing))
            ways.append(f"for empty cells: {override('missing', entries)}")
        if self._dates:
            given = {column: format or "" for column, format in keys.dates.items()}
            ways.append(f"dates as numbers, days since 1970: {write_formats(given | self._dates)}")
            if any(self._dates.values()):
                ways[-1] += " (if the day is first; if the month is, change the format)"
        if self._categorical:
            ways.append(f"as categories: {override('categorical', _union(keys.categorical, self._categorical))}")
        if self._most_categories:
            ways.append(f"one feature for each text: dataset.max_categories={self._most_categories}")
            ways.append("an embedding of each text: backbone=embedding_mlp")
        if number == 1:
            raise DataError(f"{self._table.path}, column {self._columns[0]}: {'; '.join([self.lines[0], *ways])}")
        lines = [f"  {column}: {line}" for column, line in zip(self._columns, self.lines, strict=True)][:_LISTED]
        lines += [f"  and {number - _LISTED} more columns"] if number > _LISTED else []
        raise DataError("\n".join([
            f"{self._table.path}: {number} columns cannot be inputs as they are:", *lines,
            "What settles them:", *(f"  {way}" for way in ways),
        ]))  # fmt: skip


def find_inputs(
    table: Columns, keys: InputKeys, targets: set[str], row_columns: set[str], train: numpy.ndarray
) -> Inputs:
    """Return the columns of the input and their kinds.

    Args:
        table: with the columns.
        keys: of the config.
        targets: columns that tasks are to predict; none may be an input.
        row_columns: those that describe rows; they are inputs only if `keys.inputs` names them.
        train: the rows of the training split.

    Raises:
        DataError: with all columns that cannot be inputs as they are, and what settles it.
    """
    columns, empty = _choose(table, keys, targets, row_columns)
    problems = _Problems(table, keys)
    kinds: dict[str, Kind] = {}
    categories: dict[str, Categories] = {}
    dates: dict[str, numpy.ndarray] = {}
    formats: dict[str, str | None] = {}
    for column in columns:
        cells = table.cells[column]
        kinds[column] = "number"
        if column in keys.categorical:
            kinds[column] = "text"
            categories[column] = keys.categories(column, cells, train)
            if not problems.are_few(categories[column]):
                problems.add_many(column, categories[column])
        elif column in keys.dates:
            kinds[column] = "date"
            dates[column], formats[column] = _read_dates(table, column, keys.dates[column], problems)
        elif cells.are_numbers:
            infinite = numpy.isinf(cells.numbers)
            if infinite.any():
                problems.examine(column, keys.categories(column, cells, train))
        elif not (numpy.isfinite(cells.numbers) | cells.missing).all():
            kinds[column] = "text"
            categories[column] = keys.categories(column, cells, train)
            problems.examine(column, categories[column])
        if kinds[column] != "text" and cells.missing[train].all():
            problems.add(column, "every cell of the training split is empty")
    problems.raise_if_any()
    _check_hashed(keys, kinds)
    rare = [] if keys.encoding == "one_hot" else _without_categories(categories)
    if rare and len(rare) == len(kinds):
        raise DataError(
            f"{table.path}: no column is left for the inputs: no text of {', '.join(rare)} is in "
            f"{max(2, keys.min_category_rows)} rows of training"
        )
    for column in rare:
        del kinds[column], categories[column]
    return Inputs(kinds, categories, dates, formats, empty, rare)


def count_texts(indices: numpy.ndarray) -> int:
    """Return the number of different texts; empty cells, -1, do not count."""
    return int((numpy.unique(indices) >= 0).sum())


def _without_categories(categories: Mapping[str, Categories]) -> list[str]:
    """Return the columns whose texts are too rare, or whose texts are all different, such as names."""
    return [column for column, found in categories.items() if not (found.labels and found.repeat)]


def _check_hashed(keys: InputKeys, kinds: Mapping[str, Kind]) -> None:
    """Raise DataError if `hash_buckets` names a column that is not of texts."""
    for column in keys.hash_buckets if isinstance(keys.hash_buckets, dict) else ():
        if column not in kinds:
            raise DataError(
                f"dataset.hash_buckets: {column!r} is none of the inputs; {suggest(column, kinds, 'they are')}"
            )
        if kinds[column] != "text":
            raise DataError(
                f"dataset.hash_buckets: {column!r} is a column of {kinds[column]}s; "
                f"to treat it as texts: {override('categorical', _union(keys.categorical, [column]))}"
            )


def _choose(table: Columns, keys: InputKeys, targets: set[str], row_columns: set[str]) -> tuple[list[str], list[str]]:
    """Return the columns of the input, and those that are left out because all of their cells are empty."""
    for column in keys.exclude:
        table.require(column, "dataset.exclude")
    chosen = keys.inputs
    if chosen is None:
        chosen = [column for column in table.cells if column not in targets | row_columns]
    for column in chosen:
        table.require(column, "dataset.inputs")
        if column in targets:
            raise DataError(f"dataset.inputs: {column!r} is what a task is to predict; it cannot be an input as well")
    left = [column for column in dict.fromkeys(chosen) if column not in set(keys.exclude)]
    empty = [column for column in left if table.missing(column).all()]
    columns = [column for column in left if column not in set(empty)]
    for key, named in (("categorical", keys.categorical), ("dates", keys.dates)):
        for column in named:
            if column in row_columns and column not in left:
                raise DataError(
                    f"dataset.{key}: {column!r} describes rows (their split, group, time, id or weight) and is no "
                    f"input; leave it out of dataset.{key}, or list all inputs, this one among them, in dataset.inputs"
                )
            if column not in left:
                raise DataError(f"dataset.{key}: {column!r} is none of the inputs; {suggest(column, left, 'they are')}")
    both = [column for column in keys.categorical if column in keys.dates]
    if both:
        raise DataError(f"dataset.dates: {both[0]!r} is in dataset.categorical too; it can be one of them")
    if not columns:
        raise DataError(
            f"{table.path}: no column is left for the inputs, which are those neither predicted nor excluded"
        )
    return columns, empty


def _read_dates(
    table: Columns, column: str, format: str | None, problems: _Problems
) -> tuple[numpy.ndarray, str | None]:
    """Return a column of dates as days since 1970-01-01, float64 [num_rows], NaN for an empty cell, and their format.

    The format is None if none was found, which is a problem then.
    """
    cells = table.cells[column]
    if format is None:
        texts = [text for text in cells.labels if not is_usual(text)]
        formats = find_formats(texts)
        if not formats:  # then that of the cells which look like dates
            looks = look_like_dates(texts)
            formats = find_formats([text for text, is_date in zip(texts, looks, strict=True) if is_date])
        if len(formats) > 1:
            ways = " or ".join(override("dates", {column: format}) for format in formats)
            problems.add(column, f"the day or the month is first in {texts[0]!r}; write which: {ways}")
        format = formats[0] if formats else None
    days = to_days(cells.labels, format) if format is not None else numpy.full(len(cells.labels), numpy.nan)
    wrong = numpy.isnan(cells.spread(days)) & ~cells.missing
    if wrong.any():
        row = int(wrong.argmax())
        what = f"{cells.texts[row]!r} in row {table.numbers[row]} is no date"
        what += f" in the format {format!r}" if format is not None else " in a format that all cells have"
        problems.add(column, f"{what}; give the format, as in {override('dates', {column: '%d.%m.%Y'})}")
    return cells.spread(days), format


def _union(given: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*given, *more]))
