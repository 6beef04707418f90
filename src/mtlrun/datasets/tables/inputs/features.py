"""Features: what a model sees of the columns of the input, by the statistics of the training split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.base import SplitName
from mtlrun.datasets.input_columns import InputColumn
from mtlrun.datasets.tables.inputs.categories import Categories, Encoding
from mtlrun.datasets.tables.inputs.encoding import fill_index, fill_numbers, fill_one_hot
from mtlrun.datasets.tables.inputs.kinds import InputKeys, Inputs
from mtlrun.datasets.tables.inputs.scaling import SCALINGS, Scaling
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.splits.division import Rows

# Numbers that are scaled at a time: few enough for the cache of a processor.
_TILE = 2**17
# Names that a line lists.
_LISTED = 8


@dataclass(frozen=True)
class Features:
    """The features of a table.

    Args:
        columns: the meaning of each.
        inputs: {split: float32 [num_samples, num_features]}.
        scales: {column: what scales it} of numbers and dates; see `scaling`.
        constant: columns of numbers and dates that are constant in training.
        categories: {column: its categories}.
    """

    columns: list[InputColumn]
    inputs: dict[SplitName, Tensor]
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    constant: list[str] = field(default_factory=list)
    categories: dict[str, Categories] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The name of each: a column, `column=category`, `column#bucket`, or `column is empty`."""
        return [column.name for column in self.columns]


def make_features(table: Columns, inputs: Inputs, rows: Rows, keys: InputKeys) -> Features:
    """Return the features of all rows.

    Numbers are scaled, an empty cell is 0; texts are one-hot, or an index. See `Table`.
    """
    features = Features([], {}, categories=inputs.categories)
    widths = [_width(table, column, inputs, rows["train"], keys.encoding) for column in inputs.kinds]
    # The result is allocated once and filled, since large tables would not fit into memory twice.
    made = {name: numpy.empty((len(positions), sum(widths)), dtype=numpy.float32) for name, positions in rows.items()}
    for are_texts, group in groupby(inputs.kinds, lambda column: inputs.kinds[column] == "text"):
        if not are_texts:
            _scale(table, list(group), inputs, rows, SCALINGS[keys.scale](), features, made)
        elif keys.encoding == "one_hot":
            for column in group:
                _one_hot(column, rows, features, made)
        else:
            for column in group:
                _index(column, rows, features, made)
    features.inputs.update({name: torch.from_numpy(array) for name, array in made.items()})
    train = features.inputs["train"]
    features.columns[:] = [
        replace(column, values=train[:, place]) if column.kind == "number" else column
        for place, column in enumerate(features.columns)
    ]
    return features


def _width(table: Columns, column: str, inputs: Inputs, train: numpy.ndarray, encoding: Encoding) -> int:
    """Return the number of features of a column."""
    if inputs.kinds[column] == "text":
        return len(inputs.categories[column].labels) if encoding == "one_hot" else 1
    return 1 + int(table.cells[column].missing[train].any())


def describe_columns(inputs: Inputs, features: Features, left_out: Sequence[str]) -> str:
    """Return in a line what became of the columns."""
    kinds = list(inputs.kinds.values())
    texts = [column for column, kind in inputs.kinds.items() if kind == "text"]
    parts = []
    if "number" in kinds:
        parts.append(_count(kinds.count("number"), "number"))
    if texts:
        sizes = [_describe_categories(column, features.categories[column]) for column in texts]
        parts.append(f"{_count(len(texts), 'text')} with categories ({_list(sizes)})")
    if "date" in kinds:
        parts.append(
            f"{_count(kinds.count('date'), 'date')} ({_list([c for c, k in inputs.kinds.items() if k == 'date'])})"
        )
    for what, columns in (
        ("left out", left_out), ("without a cell", inputs.empty), ("without a text that repeats", inputs.rare),
        ("constant", features.constant),
    ):  # fmt: skip
        if columns:
            parts.append(f"{what}: {_list(columns)}")
    return f"columns of the inputs: {'; '.join(parts)}; {_count(len(features.names), 'feature')}"


def describe_unseen(features: Features, rows: Rows) -> list[str]:
    """Return in a line which columns have texts that training does not have; nothing if none has."""
    counts = []
    for column, categories in features.categories.items():
        of_splits = {name: int(categories.unseen[positions].sum()) for name, positions in rows.items()}
        listing = " and ".join(f"{_count(count, 'row')} of {name}" for name, count in of_splits.items() if count)
        if listing:
            counts.append(f"{column} ({listing})")
    return [f"texts that are not in train count as none of the categories: {_list(counts)}"] if counts else []


def _describe_categories(column: str, categories: Categories) -> str:
    count = f"{len(categories.labels):,}"
    if categories.buckets is not None:
        count = f"{len(set(categories.labels) - {None}):,} of {categories.buckets:,} buckets"
    return f"{column} {count}" + (f" and {categories.num_rare:,} rare" if categories.num_rare else "")


def _scale(
    table: Columns, columns: Sequence[str], inputs: Inputs, rows: Rows, scaling: Scaling, features: Features,
    made: Mapping[SplitName, numpy.ndarray],
) -> None:  # fmt: skip
    """Make the features of some columns of numbers or dates: each column, and a mark if training has empty cells."""
    cells = [inputs.dates[column] if column in inputs.dates else table.floats(column) for column in columns]
    marked = numpy.array([table.cells[column].missing[rows["train"]].any() for column in columns])
    size = max(1, _TILE // len(rows["train"]))
    for start in range(0, len(cells), size):
        scaling.fit(_take(cells[start : start + size], rows["train"]))
    places, marks = [], []
    for index, column in enumerate(columns):
        features.scales[column] = scaling.learned(index)
        places.append(len(features.columns))
        features.columns.append(InputColumn(column))
        if marked[index]:
            marks.append(len(features.columns))
            features.columns.append(InputColumn(f"{column} is empty", "indicator"))
    features.constant.extend(column for column, same in zip(columns, scaling.constant, strict=True) if same)
    where = slice(places[0], places[-1] + 1) if not marks else places
    step = max(1, _TILE // len(columns))
    for name, positions in rows.items():
        for start in range(0, len(positions), step):
            values = _take(cells, positions[start : start + step])
            fill_numbers(made[name][start : start + step], values, scaling, where, marks, marked)


def _take(cells: Sequence[numpy.ndarray], positions: numpy.ndarray) -> numpy.ndarray:
    """Return some rows of some columns, [num_columns, num_positions]."""
    values = numpy.empty((len(cells), len(positions)))
    for index, column in enumerate(cells):
        values[index] = column[positions]
    return values


def _one_hot(column: str, rows: Rows, features: Features, made: Mapping[SplitName, numpy.ndarray]) -> None:
    """Make the features of a column of texts, one for each category."""
    categories = features.categories[column]
    start, count = len(features.columns), len(categories.labels)
    joint = "=" if categories.buckets is None else "#"
    for label in categories.labels:
        name = f"{column} is empty" if label is None else f"{column}{joint}{label}"
        features.columns.append(InputColumn(name, "indicator"))
    for split, positions in rows.items():
        fill_one_hot(made[split], categories.indices[positions], start, count)


def _index(column: str, rows: Rows, features: Features, made: Mapping[SplitName, numpy.ndarray]) -> None:
    """Make the feature of a column of texts: 1 for its first category, and 0 for what is none of them."""
    categories = features.categories[column]
    place = len(features.columns)
    features.columns.append(InputColumn(column, "category", len(categories.labels) + 1))
    for split, positions in rows.items():
        fill_index(made[split], categories.indices[positions], place)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _list(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
