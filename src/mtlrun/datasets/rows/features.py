"""Features: what a model sees of the columns of the input, by the statistics of the training split."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.base import SplitName
from mtlrun.datasets.rows.columns import Columns
from mtlrun.datasets.rows.inputs import Inputs, Kind, count_categories
from mtlrun.datasets.rows.splits import Rows

# Numbers that are standardized at a time, so that wide tables take no Python loop and long ones no second copy.
_BLOCK = 2**22
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
    widths = {column: _width(table, column, kind, rows["train"]) for column, kind in inputs.kinds.items()}
    # The result is allocated once and filled, since large tables would not fit into memory twice.
    total = sum(widths.values())
    made = {name: numpy.empty((len(positions), total), dtype=numpy.float32) for name, positions in rows.items()}
    start = 0
    for columns in _blocks(inputs, max(1, _BLOCK // len(table))):
        if inputs.kinds[columns[0]] == "text":
            values = _one_hot(table, columns[0], rows, features)
        else:
            values = _standardize(table, columns, inputs, rows["train"], features)
        end = start + len(values)
        for name, positions in rows.items():
            made[name][:, start:end] = values[:, positions].T
        start = end
    features.inputs.update({name: torch.from_numpy(array) for name, array in made.items()})
    return features


def _blocks(inputs: Inputs, size: int) -> list[list[str]]:
    """Divide the columns into blocks of numbers and dates, at most `size` of them, and of one column of texts."""
    blocks: list[list[str]] = []
    texts = True
    for column, kind in inputs.kinds.items():
        if kind == "text" or texts or len(blocks[-1]) == size:
            blocks.append([])
        blocks[-1].append(column)
        texts = kind == "text"
    return blocks


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
    table: Columns, columns: Sequence[str], inputs: Inputs, train: numpy.ndarray, features: Features
) -> numpy.ndarray:
    """Return the features of some columns of numbers or dates, [num_features, num_rows]."""
    values = numpy.stack([inputs.dates[c] if c in inputs.dates else table.floats(c) for c in columns])
    absent = numpy.isnan(values)
    known, seen = ~absent[:, train], values[:, train]
    counts = known.sum(axis=1)
    means = numpy.where(known, seen, 0).sum(axis=1) / counts
    # Compare the extremes, since the standard deviation of equal numbers need not be zero after rounding.
    same = numpy.where(known, seen, numpy.inf).min(axis=1) == numpy.where(known, seen, -numpy.inf).max(axis=1)
    deviations = numpy.where(known, seen - means[:, None], 0)
    stds = numpy.where(same, 0.0, numpy.sqrt(numpy.square(deviations).sum(axis=1) / counts))
    values -= means[:, None]
    values /= numpy.where(same, numpy.inf, stds)[:, None]
    values[absent] = 0
    result: list[numpy.ndarray] = []
    for index, column in enumerate(columns):
        features.scales[column] = float(means[index]), float(stds[index])
        features.names.append(column)
        result.append(values[index])
        if counts[index] < len(train):
            features.names.append(f"{column} is empty")
            result.append(absent[index])
    return values if len(result) == len(columns) else numpy.stack(result)


def _one_hot(table: Columns, column: str, rows: Rows, features: Features) -> numpy.ndarray:
    """Return the features of a column of texts, [num_categories, num_rows]."""
    cells = table.cells[column]
    seen = numpy.unique(cells.indices[rows["train"]]).tolist()
    categories: list[str | None] = sorted(cells.labels[index] for index in seen if index >= 0)
    categories += [None] * (-1 in seen)
    features.names.extend(f"{column} is empty" if label is None else f"{column}={label}" for label in categories)
    features.categories[column] = categories
    known = {category: index for index, category in enumerate(categories)}
    numbers = numpy.array([known.get(label, -1) for label in [*cells.labels, None]])[cells.indices]
    unseen = (numbers < 0) & (cells.indices >= 0)
    counts: dict[SplitName, int] = {name: int(unseen[rows[name]].sum()) for name in rows}
    if any(counts.values()):
        features.unseen[column] = {name: count for name, count in counts.items() if count}
    one_hot: numpy.ndarray = numbers == numpy.arange(len(categories))[:, None]
    return one_hot


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _list(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
