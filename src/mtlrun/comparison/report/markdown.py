"""The document as Markdown, with its pictures as files beside it."""

import html
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from mtlrun.comparison.report.document import Block, Cell, Code, Details, Document, Paragraph, Picture, Points, Table
from mtlrun.records.printable import printable

_MARKED = {"": "{}", "best": "**{}**", "second": "_{}_", "differs": "**{}** (differs)", "bad": "**{}**"}
_SIGNS = re.compile(r"([\\`*_\[|~#$])")


def as_markdown(document: Document, folder: str) -> tuple[str, dict[str, str]]:
    """Return the text, and {path of a picture, relative to the text: SVG}.

    Args:
        document: what to render.
        folder: name of the folder for the pictures, beside the text.
    """
    renderer = _Renderer(folder)
    parts = [f"# {_escape(document.title)}", _escape(" · ".join(document.facts))]
    for section in document.sections:
        parts.append(f"## {_escape(section.title)}")
        parts += [renderer.render(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n", renderer.files


class _Renderer:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files: dict[str, str] = {}

    def render(self, block: Block) -> str:
        """Return one block as Markdown."""
        if isinstance(block, Paragraph):
            return f"**{_escape(block.text)}**" if block.lead else _escape(block.text)
        if isinstance(block, Points):
            title = f"**{_escape(block.title)}**\n\n" if block.title else ""
            return title + "\n".join(f"- {_escape(item)}" for item in block.items)
        if isinstance(block, Code):
            return "\n".join(f"    {_in_one_line(line)}" for line in block.lines)
        if isinstance(block, Table):
            return _table(block)
        if isinstance(block, Picture):
            return self._picture(block)
        return self._details(block)

    def _picture(self, picture: Picture) -> str:
        path = str(PurePosixPath(self.folder) / f"{picture.name}.svg")
        self.files[path] = picture.svg
        return f"![{_escape(picture.title)}]({quote(path)})\n\n{_escape(f'{picture.title}. {picture.caption}')}"

    def _details(self, details: Details) -> str:
        inner = "\n\n".join(self.render(block) for block in details.blocks)
        return f"### {_escape(details.summary)}\n\n{inner}"


def _table(table: Table) -> str:
    lines = [
        f"{_escape(table.caption)}\n",
        _row([_escape(column.title) for column in table.columns]),
        _row(["--:" if column.numeric else "---" for column in table.columns]),
    ]
    lines += [_row([_cell(cell) for cell in row]) for row in (*table.rows, *table.below)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = _escape(cell.text)
    marked = _MARKED[cell.mark].format(text) if text else ""
    return f"{marked}<br>{_escape(cell.detail)}" if cell.detail else marked


def _in_one_line(text: str) -> str:
    return " ".join(printable(text).splitlines())


def _escape(text: str) -> str:
    """Return a text in one line, in which nothing is a sign of Markdown or of HTML."""
    escaped = _SIGNS.sub(r"\\\1", html.escape(" ".join(printable(text).split()), quote=False))
    # At the start of a line these would begin a list; addresses are no links.
    escaped = re.sub(r"^([-+]|\d+[.)])(?= )", lambda found: found[0][:-1] + "\\" + found[0][-1], escaped)
    return escaped.replace("://", ":&#47;/")
