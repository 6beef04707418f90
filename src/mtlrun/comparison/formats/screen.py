"""The comparison on a screen, as wide as that is."""

import io
import textwrap
from collections.abc import Sequence

from rich.console import Console

from mtlrun.comparison.formats.sections import sections_of
from mtlrun.comparison.formats.values import count_texts, count_titles, label_of, text_of, title_of
from mtlrun.comparison.table import Comparison, ComparisonTable
from mtlrun.records.display import as_shown, print_line, print_table
from mtlrun.records.printable import printable
from mtlrun.records.text_table import TextTable

_MARGIN = 1  # spaces before each line of a table
_UNLIMITED = 10_000  # characters of a line in a file


def show(console: Console, comparison: Comparison) -> None:
    """Print each table with what is to be known about it, and what the numbers of all tables are."""
    for table in comparison.tables:
        _print_table(console, as_text_table(table), table.title if len(comparison.tables) > 1 else None)
        for line in (*(f"warning: {warning}" for warning in table.warnings), *table.notes):
            _print_sentence(console, line)
        for section in sections_of(table):
            console.print()
            _print_table(console, section.table, section.title)
            for line in section.notes:
                _print_sentence(console, line)
        if table.commands:
            console.print("to make the single-task baseline:")
        for command in table.commands:
            console.print(command, soft_wrap=True)  # in one line, ready to paste
    for note in comparison.notes:
        _print_sentence(console, note)


def as_text(comparison: Comparison) -> str:
    """Return what a screen of any width would show."""
    file = io.StringIO()
    show(Console(file=file, width=_UNLIMITED, highlight=False, markup=False, emoji=False), comparison)
    return printable(file.getvalue())


def as_text_table(table: ComparisonTable) -> TextTable:
    """Return the cells of a table as texts."""
    titles = [*table.labels, *map(title_of, table.columns), *count_titles(table)]
    rows = [
        [*label_of(row, table.labels), *(text_of(row, column) for column in table.columns), *count_texts(table, row)]
        for row in table.rows
    ]
    return TextTable(titles, rows, num_left=len(table.labels))


def _print_table(console: Console, table: TextTable, title: str | None) -> None:
    """Print a table; where it is too wide, as several that each begin with what tells the rows apart, or its number."""
    shown = table.map(lambda text: as_shown(console, text))
    room = console.width - _MARGIN
    parts = shown.divide(room)
    if any(part.width > room for part in parts) and table.num_left:
        if title is not None:
            print_line(console, title)
        labels = shown.header[: table.num_left]
        legend = [_describe(labels, row[: table.num_left]) for row in shown.rows]
        for number, words in enumerate(legend, start=1):
            print_line(console, f"{' ' * _MARGIN}#{number}  {words}")
        rows = [[f"#{number}", *row[table.num_left :]] for number, row in enumerate(shown.rows, start=1)]
        title, parts = None, TextTable(["run", *shown.header[table.num_left :]], rows).divide(room)
    for index, part in enumerate(parts):
        print_table(console, part, title if index == 0 else None, margin=_MARGIN)


def _print_sentence(console: Console, text: str) -> None:
    """Print a sentence, wrapped at words, without spaces at the ends of lines."""
    shown = as_shown(console, text)
    for line in textwrap.wrap(shown, console.width, break_long_words=False, break_on_hyphens=False):
        console.print(line, soft_wrap=True)


def _describe(labels: Sequence[str], cells: Sequence[str]) -> str:
    """Return in words what tells a row apart; of a simple predictor that is a name in the first column."""
    if cells[0].startswith("baseline "):
        return cells[0]
    return ", ".join(f"{label}={cell}" for label, cell in zip(labels, cells, strict=True) if cell)
