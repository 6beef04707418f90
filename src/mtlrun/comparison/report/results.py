"""The tables of results and costs of a data set."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, isnan
from typing import Any

from mtlrun.comparison.columns import Column as ResultColumn
from mtlrun.comparison.formats.sections import sections_of
from mtlrun.comparison.formats.values import (
    COSTS,
    NOTHING,
    count_texts,
    count_titles,
    format_number,
    label_of,
    text_of,
    title_of,
)
from mtlrun.comparison.report.document import Block, Cell, Column, Mark, Points, Table
from mtlrun.comparison.table import Cell as Result
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.records.text_table import TextTable

_MARKS: dict[int, Mark] = {1: "best", 2: "second"}


def results(table: ComparisonTable) -> list[Block]:
    """Return the results of all rows, and what is to be known about them."""
    columns = [column for column in table.columns if column.kind not in COSTS]
    which = f"Test results on {table.title}: mean ± standard deviation"
    if any(cell.interval is not None for row in table.rows for cell in row.cells.values()):
        which += ", below it the 95 % interval of the mean"
    blocks: list[Block] = [_table(table, columns, which, counts=True)]
    if table.notes:
        blocks.append(Points(table.notes, small=True))
    return blocks


def analyses(table: ComparisonTable, **changes: Any) -> list[Block]:
    """Return the tables of one analysis, and what is to be known about them.

    Args:
        table: on which the analyses were made.
        changes: `against`, `tuning` or `trade_offs`; what is not given is left out.
    """
    chosen = replace(table, **{"against": None, "tuning": None, "trade_offs": None} | changes)
    blocks: list[Block] = []
    for section in sections_of(chosen):
        blocks.append(from_texts(section.table, section.title[:1].upper() + section.title[1:]))
        blocks.append(Points(section.notes, small=True))
    return blocks


def costs(table: ComparisonTable) -> list[Block]:
    """Return what the rows cost."""
    columns = [column for column in table.columns if column.kind in COSTS]
    return [_table(table, columns, f"Costs on {table.title}", counts=False)] if columns else []


def from_texts(table: TextTable, caption: str) -> Table:
    """Return a table of texts as a block; texts that are numbers are sorted as such."""
    width = len(table.header)
    rows = [[*row, *[""] * (width - len(row))] for row in table.rows if not isinstance(row, str)]
    numeric = [
        index >= table.num_left and all(_number(row[index]) is not None or row[index] in ("", NOTHING) for row in rows)
        for index in range(width)
    ]
    columns = [Column(title, is_numeric) for title, is_numeric in zip(table.header, numeric, strict=True)]
    cells = [
        [Cell(text, sort=_number(text) if is_numeric else None) for text, is_numeric in zip(row, numeric, strict=True)]
        for row in rows
    ]
    return Table(caption, columns, cells, num_labels=max(1, table.num_left))


def in_order(table: ComparisonTable) -> list[Row]:
    """Return the rows of configs, the best first: by mean rank where there is one, or by the first metric."""
    rank = next((column for column in table.columns if column.kind == "rank"), None)
    column = rank or next(iter(table.columns), None)
    if column is None:
        return table.configs
    sign = 1 if column.direction == "min" else -1
    return sorted(table.configs, key=lambda row: (isnan(row.mean(column)), sign * row.mean(column)))


def label_columns(table: ComparisonTable) -> list[Column]:
    """Return the columns that tell the rows apart."""
    return [Column(label or "method") for label in labels_in_order(table)] or [Column("method")]


def row_labels(table: ComparisonTable, row: Row) -> list[Cell]:
    """Return the cells that tell a row from the others."""
    return [Cell(text) for text in label_of(row, labels_in_order(table))] if table.labels else [Cell(row.name)]


def labels_in_order(table: ComparisonTable) -> list[str]:
    """Return the labels, first the one with the most values: it names the rows."""
    values = {label: {str(row.label.get(label)) for row in table.configs} for label in table.labels}
    return sorted(table.labels, key=lambda label: -len(values[label]))


def _table(table: ComparisonTable, columns: Sequence[ResultColumn], caption: str, *, counts: bool) -> Table:
    labels = label_columns(table)
    titles = labels + [Column(title_of(column), True) for column in columns]
    titles += [Column(title, True) for title in count_titles(table)] * counts
    rows: dict[str, list[list[Cell]]] = {"config": [], "made": [], "predictor": []}
    for row in (*in_order(table), *(row for row in table.rows if row.kind != "config")):
        cells = row_labels(table, row) + [_cell(row, column) for column in columns]
        if counts:
            incomplete = len(row.counts) > 1
            cells += [
                Cell(text, sort=_number(text), mark="bad" if incomplete and text else "")
                for text in count_texts(table, row)
            ]
        if row.kind == "config" or any(column.key in row.cells for column in columns):
            rows[row.kind].append(cells)
    return Table(caption, titles, rows["config"], rows["made"] + rows["predictor"], num_labels=len(labels))


def _cell(row: Row, column: ResultColumn) -> Cell:
    result = row.cells.get(column.key)
    if result is None:
        return Cell(text_of(row, column))
    sort = result.mean if isfinite(result.mean) else None
    return Cell(text_of(row, column), _detail(result, column), sort, _MARKS.get(result.place, ""))


def _detail(result: Result, column: ResultColumn) -> str:
    words = []
    if result.interval is not None and all(map(isfinite, result.interval)):
        low, high = (format_number(column, bound) for bound in result.interval)
        words.append(f"[{low}, {high}]")
    if result.rank_group is not None:
        words.append(f"rank {result.rank_group}")
    return " · ".join(words)


def _number(text: str) -> float | None:
    """Return the number that a text begins with; None without one, and where more than its unit follows."""
    first = text.split(" ")[0].split("<")[-1].replace(",", "").rstrip("%")
    try:
        value = float(first)
    except ValueError:
        return None
    return value if isfinite(value) else None
