"""What a dataset learned from its table, as plain data: enough to encode further rows and to read predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from mtlrun.datasets.base import SplitName
from mtlrun.datasets.tables.inputs.features import Features
from mtlrun.datasets.tables.inputs.kinds import Inputs
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
    table: Columns, inputs: Inputs, features: Features, train: numpy.ndarray, excluded: Sequence[str]
) -> dict[str, Any]:
    """Return what the inputs mean.

    `columns`, in the order of the features, are numbers, dates or texts. The feature of a number x, or of a date, is
    (x - mean) / std, 0 where std is 0 or the cell is empty; if `marks_empty`, another feature is 1 for an empty cell.
    Dates are days since 1970-01-01, read in `format`. Texts have a feature for each of their `categories`, of which
    null is the empty cell. `features` are the names of all; the other lists are of columns.

    Args:
        table: with the columns.
        inputs, features: of the table.
        train: the rows of the training split.
        excluded: columns that the config excludes.
    """
    columns: dict[str, dict[str, Any]] = {}
    for column, kind in inputs.kinds.items():
        if kind == "text":
            columns[column] = {"kind": kind, "categories": features.categories[column]}
            continue
        mean, std = features.scales[column]
        marks_empty = bool(table.missing(column)[train].any())
        columns[column] = {"kind": kind, "mean": mean, "std": std, "marks_empty": marks_empty}
        if kind == "date":
            columns[column]["format"] = inputs.formats[column]
    constant = [column for column, (_, std) in features.scales.items() if std == 0]
    return {
        "columns": columns,
        "features": features.names,
        "constant": constant,
        "excluded": list(excluded),
        "empty": inputs.empty,
    }


def describe_targets(targets: Targets, kinds: Mapping[str, str], counts: LabelCounts) -> list[str]:
    """Return a line on the labels of each task in training."""
    lines = []
    for task, labels in counts.items():
        if len(labels) > _LISTED:
            lines.append(f"{task}: {len(labels):,} labels")
        else:
            listing = ", ".join(f"{label} {of_split['train']:,}" for label, of_split in labels.items())
            positive = f"; {targets.classes[task][1]} is positive" if reads(task, kinds[task]) == "binary" else ""
            lines.append(f"{task}: {listing} in training{positive}")
    return lines
