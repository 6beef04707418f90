"""The comparison as CSV: numbers that are not rounded, a column each for mean, standard deviation and n."""

import csv
import io
from math import isfinite

from mtlrun.comparison.table import Cell, Comparison


def as_csv(comparison: Comparison) -> str:
    """Return one table of all data sets; what a row lacks is empty, and so is a number that is not finite.

    The columns: `data`, `kind` (config or predictor), the keys in which rows differ, `<column>`, `<column> std` and
    `<column> n` for each column of the comparison, with --intervals `<column> low` and `<column> high`, then the number
    of runs in each state.
    """
    intervals = comparison.options.intervals
    labels = dict.fromkeys(label for table in comparison.tables for label in table.labels if label)
    columns = dict.fromkeys(column for table in comparison.tables for column in table.columns)
    states = dict.fromkeys(state for table in comparison.tables for row in table.configs for state in row.counts)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = ["", " std", " n", *([" low", " high"] if intervals else [])]
    titles = [f"{column.key}{kind}" for column in columns for kind in kinds]
    # "data" is also the label of rows of one data set whose contents differ.
    named = [f"label {label}" if label in ("data", "kind", "name") else label for label in labels]
    writer.writerow(["data", "kind", "name", *named, *titles, *states])
    for table in comparison.tables:
        for row in table.rows:
            cells = [row.cells.get(column.key) for column in columns]
            numbers = [
                number for cell in cells for number in (_numbers(cell, intervals) if cell else [""] * len(kinds))
            ]
            counts = [row.counts.get(state, 0) if row.kind == "config" else "" for state in states]
            writer.writerow(
                [table.title, row.kind, row.name, *(row.label.get(label, "") for label in labels), *numbers, *counts]
            )
    return text.getvalue()


def _numbers(cell: Cell, intervals: bool) -> list[float | str]:
    low, high = cell.interval or ("", "")
    return [_plain(cell.mean), _plain(cell.std), cell.n, *([low, high] if intervals else [])]


def _plain(value: float) -> float | str:
    return value if isfinite(value) else ""
