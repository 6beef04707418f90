"""Features: what a model sees of the columns of the input, by the statistics of the training split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.base import SplitName
from mtlrun.datasets.tables.inputs.kinds import Inputs, Kind, count_categories
from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.datasets.tables.splits.division import Rows

# Numbers that are standardized at a time: few enough for the cache of a processor.
_TILE = 2**17
# Names that a line lists.
_LISTED = 8


@dataclass(frozen=True)
class Features:
    """The features of a table.

    Args:
        names: the meaning of each: a column, `column=category`, or `column is empty`.
        inputs: {split: float32 [num_samples, num_features]}.
        scales: {column: (mean, standard deviation)} of numbers and dates; the second is 0 for a constant column.
        categories: {column: its categories in the order of their features}; None is the empty cell.
        unseen: {column: {split: number of rows with a text that training does not have}}.
    """

    names: list[str]
    inputs: dict[SplitName, Tensor]
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    categories: dict[str, list[str | None]] = field(default_factory=dict)
    unseen: dict[str, dict[SplitName, int]] = field(default_factory=dict)


def make_features(table: Columns, inputs: Inputs, rows: Rows) -> Features:
    """Return the features of all rows.

    Numbers are standardized, an empty cell is 0; texts are one-hot. See `Table`.
    """
    features = Features([], {})
    widths = [_width(table, column, kind, rows["train"]) for column, kind in inputs.kinds.items()]
    # The result is allocated once and filled, since large tables would not fit into memory twice.
    made = {name: numpy.empty((len(positions), sum(widths)), dtype=numpy.float32) for name, positions in rows.items()}
    for are_texts, group in groupby(inputs.kinds, lambda column: inputs.kinds[column] == "text"):
        if are_texts:
            for column in group:
                _one_hot(table, column, rows, features, made)
        else:
            _standardize(table, list(group), inputs, rows, features, made)
    features.inputs.update({name: torch.from_numpy(array) for name, array in made.items()})
    return features


def _width(table: Columns, column: str, kind: Kind, train: numpy.ndarray) -> int:
    """Return the number of features of a column."""
    cells = table.cells[column]
    return count_categories(cells.indices[train]) if kind == "text" else 1 + int(cells.missing[train].any())


def describe_columns(inputs: Inputs, features: Features, left_out: Sequence[str]) -> str:
    """Return in a line what became of the columns."""
    kinds = list(inputs.kinds.values())
    constant = [column for column, (_, std) in features.scales.items() if std == 0]
    texts = [column for column, kind in inputs.kinds.items() if kind == "text"]
    parts = []
    if "number" in kinds:
        parts.append(_count(kinds.count("number"), "number"))
    if texts:
        sizes = [f"{column} {len(features.categories[column])}" for column in texts]
        parts.append(f"{_count(len(texts), 'text')} with categories ({_list(sizes)})")
    if "date" in kinds:
        parts.append(
            f"{_count(kinds.count('date'), 'date')} ({_list([c for c, k in inputs.kinds.items() if k == 'date'])})"
        )
    for what, columns in (("left out", left_out), ("without a cell", inputs.empty), ("constant", constant)):
        if columns:
            parts.append(f"{what}: {_list(columns)}")
    return f"columns of the inputs: {'; '.join(parts)}; {_count(len(features.names), 'feature')}"


def describe_unseen(features: Features) -> list[str]:
    """Return in a line which columns have texts that training does not have; nothing if none has."""
    counts = [
        f"{column} ({' and '.join(_count(count, 'row') + f' of {name}' for name, count in splits.items())})"
        for column, splits in features.unseen.items()
    ]
    return [f"texts that are not in train count as none of the categories: {_list(counts)}"] if counts else []


def _standardize(
    table: Columns, columns: Sequence[str], inputs: Inputs, rows: Rows, features: Features,
    made: Mapping[SplitName, numpy.ndarray],
) -> None:  # fmt: skip
    """Make the features of some columns of numbers or dates: each column, and a mark if training has empty cells."""
    cells = [inputs.dates[column] if column in inputs.dates else table.floats(column) for column in columns]
    size = max(1, _TILE // len(rows["train"]))
    parts = [_moments(_take(cells[start : start + size], rows["train"])) for start in range(0, len(cells), size)]
    means, stds, marked = (numpy.concatenate(arrays) for arrays in zip(*parts, strict=True))
    places, marks = [], []
    for column, mean, std, mark in zip(columns, means.tolist(), stds.tolist(), marked.tolist(), strict=True):
        features.scales[column] = mean, std
        places.append(len(features.names))
        features.names.append(column)
        if mark:
            marks.append(len(features.names))
            features.names.append(f"{column} is empty")
    divisors = numpy.where(stds == 0, numpy.inf, stds)[:, None]
    where = slice(places[0], places[-1] + 1) if not marks else places
    step = max(1, _TILE // len(columns))
    for name, positions in rows.items():
        for start in range(0, len(positions), step):
            values = _take(cells, positions[start : start + step])
            values -= means[:, None]
            values /= divisors
            absent = numpy.isnan(values)
            values[absent] = 0
            tile = made[name][start : start + step]
            tile[:, where] = values.T
            if marks:
                tile[:, marks] = absent[marked].T


def _take(cells: Sequence[numpy.ndarray], positions: numpy.ndarray) -> numpy.ndarray:
    """Return some rows of some columns, [num_columns, num_positions]."""
    values = numpy.empty((len(cells), len(positions)))
    for index, column in enumerate(cells):
        values[index] = column[positions]
    return values


def _moments(values: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Return the mean and the standard deviation of each column, 0 for a constant one, and which have empty cells.

    Args:
        values: of the training split, [num_columns, num_train]; overwritten.
    """
    # Compare the extremes, since the standard deviation of equal numbers need not be zero after rounding.
    same = numpy.fmin.reduce(values, axis=1) == numpy.fmax.reduce(values, axis=1)
    absent = numpy.isnan(values)
    marked = absent.any(axis=1)
    counts = values.shape[1] - absent.sum(axis=1)
    if marked.any():
        values[absent] = 0
    means = values.sum(axis=1) / counts
    values -= means[:, None]
    if marked.any():
        values[absent] = 0
    numpy.square(values, out=values)
    return means, numpy.where(same, 0.0, numpy.sqrt(values.sum(axis=1) / counts)), marked


def _one_hot(
    table: Columns, column: str, rows: Rows, features: Features, made: Mapping[SplitName, numpy.ndarray]
) -> None:
    """Make the features of a column of texts."""
    cells = table.cells[column]
    seen = numpy.unique(cells.indices[rows["train"]]).tolist()
    categories: list[str | None] = sorted(cells.labels[index] for index in seen if index >= 0)
    categories += [None] * (-1 in seen)
    known = {category: index for index, category in enumerate(categories)}
    numbers = numpy.array([known.get(label, -1) for label in [*cells.labels, None]])[cells.indices]
    unseen = (numbers < 0) & (cells.indices >= 0)
    start = len(features.names)
    features.names.extend(f"{column} is empty" if label is None else f"{column}={label}" for label in categories)
    features.categories[column] = categories
    for name, positions in rows.items():
        made[name][:, start : start + len(categories)] = numbers[positions, None] == numpy.arange(len(categories))
        count = int(unseen[positions].sum())
        if count:
            features.unseen.setdefault(column, {})[name] = count


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _list(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
