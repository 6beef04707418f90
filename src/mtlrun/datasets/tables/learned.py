"""What a dataset learned from its table, as plain data: enough to encode further rows and to read predictions."""

from collections.abc import Mapping
from typing import Any

import numpy

from mtlrun.config.listing import item
from mtlrun.datasets.base import SplitName
from mtlrun.datasets.tables.inputs.features import Features
from mtlrun.datasets.tables.inputs.kinds import InputKeys, Inputs
from mtlrun.datasets.tables.labels.targets import Targets, reads
from mtlrun.datasets.tables.reading.columns import Columns

_LISTED = 10  # labels at most in a line

#: {task: {label: {split: number of rows with it}}}, labels in the order of their numbers.
LabelCounts = Mapping[str, Mapping[str, Mapping[SplitName, int]]]


def learned_of_targets(
    table: Columns, targets: Targets, kinds: Mapping[str, str], counts: LabelCounts
) -> dict[str, Any]:
    """Return {task: what its targets mean}.

    Each has its `columns` and what is read from them, `reads`; then classes and indicators their `labels` in the order
    of their numbers with the rows of each split, a binary task which of them is `positive`, and several columns of yes
    and no what each of their `cells` means.

    Args:
        table: with the columns.
        targets: of the table.
        kinds: {task: importable name of its class}.
        counts: of the labels.
    """
    learned = {}
    for task, name in kinds.items():
        columns = targets.columns[task]
        entry: dict[str, Any] = {"columns": columns, "reads": reads(task, name)}
        if task in counts:
            entry["labels"] = {label: dict(of_split) for label, of_split in counts[task].items()}
            if entry["reads"] == "binary":
                entry["positive"] = targets.classes[task][1]
            elif len(columns) > 1:
                values = targets.tensors[task].double().numpy()
                entry["cells"] = [_cells(table, column, values[:, index]) for index, column in enumerate(columns)]
        learned[task] = entry
    return learned


def _cells(table: Columns, column: str, values: numpy.ndarray) -> dict[str, int]:
    """Return the number that stands for each text of a column, of which there are few."""
    cells = table.cells[column]
    indices, first = numpy.unique(cells.indices, return_index=True)
    return {cells.labels[index]: int(values[row]) for index, row in zip(indices, first, strict=True) if index >= 0}


def learned_of_inputs(
    table: Columns, inputs: Inputs, features: Features, train: numpy.ndarray, keys: InputKeys
) -> dict[str, Any]:
    """Return what the inputs mean.

    `columns`, in the order of the features, are numbers, dates or texts. Dates are days since 1970-01-01, read in
    `format`. The feature of a number or date x is 0 where the cell is empty, or the column is among the `constant`
    ones. Else it depends on `scale`:

    - `standard`: (x - mean) / std.
    - `robust`: z / sqrt(1 + (z / 3)^2) with z = (x - median) / spread.
    - `quantile`: interpolated linearly between `numbers`, where it is `normals`, and the outermost of these beyond.

    If `marks_empty`, another feature is 1 for an empty cell. `categories` of texts are in the order of their indices;
    null is the empty cell. If a column has `buckets`, its categories are numbers of buckets: the CRC-32 of the text in
    UTF-8, modulo `buckets`. With `category_encoding` `one_hot`, texts have a feature for each category; with `index`
    one, which is 0 for what is none of the categories, 1 for the first, and so on. `features` are the names of all; the
    other lists are of columns.

    Args:
        table: with the columns.
        inputs, features: of the table.
        train: the rows of the training split.
        keys: of the config.
    """
    columns: dict[str, dict[str, Any]] = {}
    for column, kind in inputs.kinds.items():
        if kind == "text":
            found = features.categories[column]
            hashed = {} if found.buckets is None else {"buckets": found.buckets}
            columns[column] = {"kind": kind, "categories": found.labels, **hashed}
            continue
        marks_empty = bool(table.missing(column)[train].any())
        columns[column] = {"kind": kind, **features.scales[column], "marks_empty": marks_empty}
        if kind == "date":
            columns[column]["format"] = inputs.formats[column]
    return {
        "scale": keys.scale,
        "category_encoding": keys.encoding,
        "columns": columns,
        "features": features.names,
        "constant": features.constant,
        "excluded": list(keys.exclude),
        "empty": inputs.empty,
        "rare": inputs.rare,
    }


def describe_targets(targets: Targets, kinds: Mapping[str, str], counts: LabelCounts) -> list[str]:
    """Return a line on the labels of each task in training."""
    lines = []
    for task, labels in counts.items():
        if len(labels) > _LISTED:
            lines.append(f"{task}: {len(labels):,} labels")
        else:
            positive = targets.classes[task][1] if reads(task, kinds[task]) == "binary" else None
            listing = ", ".join(
                f"{item(label)} ({of_split['train']:,}{', positive' if label == positive else ''})"
                for label, of_split in labels.items()
            )
            lines.append(f"{task}: {listing} in training")
    return lines
