"""The comparison as CSV: numbers that are not rounded, a column each for mean, standard deviation and n."""

import csv
import io
from math import isfinite

from mtlrun.comparison.table import Comparison


def as_csv(comparison: Comparison) -> str:
    """Return one table of all data sets; what a row lacks is empty, and so is a number that is not finite.

    The columns: `data`, `kind` (config or predictor), the keys in which rows differ, `<column>`, `<column> std` and
    `<column> n` for each column of the comparison, then the number of runs in each state.
    """
    labels = dict.fromkeys(label for table in comparison.tables for label in table.labels if label)
    columns = dict.fromkeys(column for table in comparison.tables for column in table.columns)
    states = dict.fromkeys(state for table in comparison.tables for row in table.configs for state in row.counts)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [title for column in columns for title in (column.key, f"{column.key} std", f"{column.key} n")]
    writer.writerow(["data", "kind", "name", *labels, *titles, *states])
    for table in comparison.tables:
        for row in table.rows:
            cells = [row.cells.get(column.key) for column in columns]
            numbers = [
                number
                for cell in cells
                for number in (("", "", "") if cell is None else (_plain(cell.mean), _plain(cell.std), cell.n))
            ]
            counts = [row.counts.get(state, 0) if row.kind == "config" else "" for state in states]
            writer.writerow(
                [table.title, row.kind, row.name, *(row.label.get(label, "") for label in labels), *numbers, *counts]
            )
    return text.getvalue()


def _plain(value: float) -> float | str:
    return value if isfinite(value) else ""
