"""The document: sections of blocks, as data that each renderer turns into text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mtlrun.records.printable import printable

Mark = Literal["", "best", "second", "differs", "bad"]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `lead` is the sentence that a hurried reader should take away."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Points:
    """A list of sentences.

    Args:
        items: the sentences.
        title: of the list, "" for none.
        warning: whether they say what makes the numbers doubtful.
        small: whether they explain a table, and are read only if need be.
    """

    items: Sequence[str]
    title: str = ""
    warning: bool = False
    small: bool = False


@dataclass(frozen=True)
class Code:
    """Lines that are shown as they are, such as commands."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: what it shows.
        detail: a second, smaller line.
        sort: by what rows are sorted; None for the text.
        mark: what a reader should notice.
    """

    text: str
    detail: str = ""
    sort: float | None = None
    mark: Mark = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and whether it holds numbers, which are aligned to the right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        caption: what it shows.
        columns: the first ones name the rows.
        rows: of cells, as many as columns.
        below: rows that are no part of what is sorted, such as simple predictors.
        num_labels: number of leading columns that name the rows.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    below: Sequence[Sequence[Cell]] = ()
    num_labels: int = 1


@dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        svg: one element <svg>, which has a role and a label; its ids begin with the name.
        title: a few words; also what is read aloud in its place.
        caption: what it shows.
        name: unique in the document; also of the file, where it becomes one.
    """

    svg: str
    title: str
    caption: str
    name: str


@dataclass(frozen=True)
class Details:
    """Blocks that are shown when asked for."""

    summary: str
    blocks: "Sequence[Block]"


Block = Paragraph | Points | Code | Table | Picture | Details


@dataclass
class Section:
    """A section.

    Args:
        title: unique in the document.
        blocks: in their order.
    """

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """What a link to the section ends with."""
        return re.sub(r"[^a-z0-9]+", "-", printable(self.title).lower()).strip("-") or "section"


@dataclass
class Document:
    """The whole.

    Args:
        title: of the document.
        facts: short texts on what it is about and when it was made, in one line below the title.
        sections: in their order; one without blocks is left out.
    """

    title: str
    facts: Sequence[str]
    sections: list[Section]

    def __post_init__(self) -> None:
        self.sections = [section for section in self.sections if section.blocks]
