"""The comparison as Markdown: aligned tables, the best value of a column in bold."""

from collections.abc import Sequence

from rich.cells import cell_len

from mtlrun.comparison.columns import Column
from mtlrun.comparison.formats.sections import sections_of
from mtlrun.comparison.formats.values import count_texts, count_titles, label_of, text_of, title_of
from mtlrun.comparison.table import Comparison, ComparisonTable, Row
from mtlrun.records.printable import printable


def as_markdown(comparison: Comparison) -> str:
    """Return the text: of each data set a table, then what is to be known about it, and about all."""
    parts: list[str] = []
    for table in comparison.tables:
        if len(comparison.tables) > 1:
            parts.append(f"### {_escape(table.title)}")
        parts.append(markdown_table(table))
        parts.append(_as_list([*(f"**warning**: {_escape(text)}" for text in table.warnings),
                               *map(_escape, table.notes)]))  # fmt: skip
        for section in sections_of(table):
            parts.append(f"#### {_escape(section.title)}")
            lines = [section.table.header, *(line for line in section.table.rows if not isinstance(line, str))]
            parts.append(_aligned([list(map(_escape, line)) for line in lines], section.table.num_left))
            parts.append(_as_list(map(_escape, section.notes)))
        if table.commands:
            parts.append("To make the single-task baseline:")
            parts.append("\n".join(f"    {printable(command)}" for command in table.commands))
    parts.append(_as_list(map(_escape, comparison.notes)))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table: ComparisonTable) -> str:
    """Return one table; in its source the columns are aligned too."""
    titles = [*table.labels, *map(title_of, table.columns), *count_titles(table)]
    lines = [list(map(_escape, titles))]
    for row in table.rows:
        values = [_mark(row, column) for column in table.columns]
        lines.append([*map(_escape, label_of(row, table.labels)), *values, *count_texts(table, row)])
    return _aligned(lines, len(table.labels))


def _aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """Return a table of a header and rows, of which so many leading columns are aligned to the left."""
    widths = [max(3, *(cell_len(line[index]) for line in lines)) for index in range(len(lines[0]))]
    rule = ["-" * width if index < left else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    return "\n".join(_join(line, widths, left) for line in (lines[0], rule, *lines[1:]))


def _mark(row: Row, column: Column) -> str:
    text = text_of(row, column)
    return f"**{text}**" if column.key in row.cells and row.cells[column.key].place == 1 else text


def _join(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = []
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        padded.append(cell + space if index < left else space + cell)
    return f"| {' | '.join(padded)} |"


def _as_list(sentences: "map[str] | Sequence[str]") -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _escape(text: str) -> str:
    """Return a text in which nothing is a sign of Markdown's, in one line."""
    shown = printable(text).replace("\n", " ").replace("\\", "\\\\")
    for sign in "|*_`<[":
        shown = shown.replace(sign, "\\" + sign)
    return shown
