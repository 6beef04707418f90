"""The texts of values, titles and rows, which all formats for readers share."""

from collections.abc import Sequence
from math import isnan

from mtlrun.comparison.columns import Column
from mtlrun.comparison.table import Cell, ComparisonTable, Row
from mtlrun.records.display import ARROWS, MARK, format_value

#: What stands in place of a value that there is none of, and of one that cannot be compared with the others.
NOTHING, NOT_COMPARABLE = "-", "--"
#: Kinds of columns that say what a row costs.
COSTS = ("time", "memory", "parameters")


def title_of(column: Column) -> str:
    """Return the title of a column; costs have no arrow."""
    return column.title if column.kind in COSTS else f"{column.title} {ARROWS[column.direction]}"


def text_of(row: Row, column: Column) -> str:
    """Return mean and standard deviation, or interval, and (n of m) where a value is not defined for all of the m."""
    cell = row.cells.get(column.key)
    if cell is None or (cell.n == 0 and column.kind != "metric"):
        return NOT_COMPARABLE if column.kind in COSTS and row.kind == "config" else NOTHING
    if column.kind in COSTS:
        return _cost(column, cell)
    text = format_number(column, cell.mean)
    if cell.shows_interval and cell.interval is not None:
        text += f" [{', '.join(_bound(column, cell, bound) for bound in cell.interval)}]"
    elif cell.n > 1:
        text += f" ± {format_spread(column, cell)}"
    missing = f" ({cell.n} of {cell.of})" if cell.n < cell.of else ""
    return text + missing + (MARK if row.group.test_selected and column.kind == "metric" else "")


def format_number(column: Column, value: float) -> str:
    """Return a value as a column shows it, without its spread."""
    if isnan(value):
        return NOTHING
    if column.kind == "delta":
        return f"{value:+.2f}" if round(value, 2) else "0.00"
    if column.kind == "rank":
        return f"{value:.2f}"
    return format_value(value)


def format_spread(column: Column, cell: Cell) -> str:
    """Return the standard deviation of a cell with as many digits as its mean."""
    return f"{cell.std:.2f}" if column.kind == "delta" else format_value(cell.std, beside=cell.mean)


def _bound(column: Column, cell: Cell, bound: float) -> str:
    return format_number(column, bound) if column.kind == "delta" else format_value(bound, beside=cell.mean)


def label_of(row: Row, labels: Sequence[str]) -> list[str]:
    """Return the text of each label of a row; a simple predictor has its name in the first one."""
    if row.kind == "predictor":
        return [row.name, *[""] * (len(labels) - 1)]
    return [str(row.label.get(label, "")) for label in labels]


def count_titles(table: ComparisonTable) -> list[str]:
    """Return the titles of the columns that count runs."""
    group = table.rows[0].group if table.rows else None
    if group is not None and (group.mixed or "seed" not in group.over or len(group.over) > 2):
        return ["runs"]
    return ["folds", "seeds"] if any(row.group.num_folds is not None for row in table.rows) else ["seeds"]


def count_texts(table: ComparisonTable, row: Row) -> list[str]:
    """Return how many runs the results of a row are from, and what became of the others."""
    if row.kind == "predictor":
        return [""] * len(count_titles(table))
    counts = row.counts
    total = sum(counts.values())
    others = [f"{count} {state}" for state, count in counts.items() if state != "completed"]
    if count_titles(table) != ["folds", "seeds"] or row.group.num_folds is None:
        done = f"{counts['completed']} of {total}" if others else str(total)
        return [""] * (len(count_titles(table)) - 1) + [", ".join([done, *others])]
    folds: dict[int | None, int] = {}
    for run in row.group.runs:
        if run.record.test:
            folds[run.fold] = folds.get(run.fold, 0) + 1
    numbers = sorted(set(folds.values())) or [0]
    seeds = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    of = row.group.num_folds
    return [str(of) if len(folds) == of else f"{len(folds)} of {of}", ", ".join([seeds, *others])]


def _cost(column: Column, cell: Cell) -> str:
    if column.kind == "time":
        return format_digits(1000 * cell.mean)
    if column.kind == "memory":
        return f"{cell.mean:.0f}"
    return f"{cell.mean:,.0f}"


def format_digits(value: float) -> str:
    """Return a positive number with three digits, without an exponent."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
