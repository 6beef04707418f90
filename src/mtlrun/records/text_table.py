"""Tables of text that are as wide as their content, and can be divided so that each part fits a screen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len


@dataclass(frozen=True)
class TextTable:
    """Columns without rules between them; nothing in them is wrapped or cut off.

    Args:
        header: the title of each column.
        rows: cells, one for each column or fewer, or a text that stands in a line of its own, whatever its length.
        num_left: number of leading columns that are aligned to the left, all others are to the right.
        gap: number of spaces between columns.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str] | str]
    num_left: int = 1
    gap: int = 2

    @property
    def widths(self) -> list[int]:
        """The width of each column in characters."""
        lines = [self.header, *(row for row in self.rows if not isinstance(row, str))]
        return [max(cell_len(line[index]) for line in lines if index < len(line)) for index in range(len(self.header))]

    @property
    def width(self) -> int:
        """The width of the columns and of what is between them."""
        return sum(self.widths) + self.gap * (len(self.header) - 1)

    def lines(self) -> list[str]:
        """Return the header and the rows as lines, without spaces at the end."""
        widths = self.widths
        return [row if isinstance(row, str) else self._line(row, widths) for row in [self.header, *self.rows]]

    def map(self, change: Callable[[str], str]) -> "TextTable":
        """Return the table with each cell changed."""
        rows = [change(row) if isinstance(row, str) else [change(cell) for cell in row] for row in self.rows]
        return TextTable([change(title) for title in self.header], rows, self.num_left, self.gap)

    def divide(self, width: int) -> list["TextTable"]:
        """Return tables of at most `width`, if they can be: each has the left columns and as many others as fit."""
        widths, parts, used = self.widths, list[list[int]](), 0
        left = sum(widths[: self.num_left]) + self.gap * max(self.num_left - 1, 0)
        for index in range(self.num_left, len(widths)):
            used += self.gap + widths[index]
            if not parts or left + used > width:
                parts.append([])
                used = self.gap + widths[index]
            parts[-1].append(index)
        return [self._select([*range(self.num_left), *part]) for part in parts] or [self]

    def _select(self, columns: Sequence[int]) -> "TextTable":
        rows = [
            row if isinstance(row, str) else [row[index] if index < len(row) else "" for index in columns]
            for row in self.rows
        ]
        return TextTable([self.header[index] for index in columns], rows, self.num_left, self.gap)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False)):
            space = " " * (width - cell_len(cell))
            padded.append(cell + space if index < self.num_left else space + cell)
        return (" " * self.gap).join(padded).rstrip()
