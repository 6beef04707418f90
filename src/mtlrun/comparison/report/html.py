"""The document as one HTML file that loads nothing: style, script and pictures are inside."""

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import count

from mtlrun.comparison.report.document import Block, Cell, Code, Details, Document, Paragraph, Picture, Points, Table
from mtlrun.records.printable import printable

#: Rows from which on a table has controls that sort and hide them.
FEWEST = 4


def as_html(document: Document) -> str:
    """Return the file's text."""
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("report.css", "report.js"))
    renderer = _Renderer()
    body = "\n".join(
        f'<section aria-labelledby="{section.anchor}">\n<h2 id="{section.anchor}">{_text(section.title)}</h2>\n'
        + "\n".join(renderer.render(block) for block in section.blocks)
        + "\n</section>"
        for section in document.sections
    )
    links = "\n".join(
        f'<li><a href="#{section.anchor}">{_text(section.title)}</a></li>' for section in document.sections
    )
    return _PAGE.format(
        policy=_policy(script),
        title=_text(document.title),
        style=style,
        facts=" · ".join(map(_text, document.facts)),
        links=links,
        body=body,
        script=script,
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
<nav aria-label="Sections"><ul>
{links}
</ul></nav>
</header>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _policy(script: str) -> str:
    """Return what a browser lets the page do: run this script, and load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; base-uri 'none'"
    )


class _Renderer:
    def __init__(self) -> None:
        self._numbers = count(1)

    def render(self, block: Block) -> str:
        """Return one block as HTML."""
        if isinstance(block, Paragraph):
            return f"<p{_class('lead' * block.lead)}>{_text(block.text)}</p>"
        if isinstance(block, Points):
            return self._points(block)
        if isinstance(block, Code):
            lines = "\n".join(_text(line) for line in block.lines)
            return f'<pre tabindex="0"><code>{lines}</code></pre>'
        if isinstance(block, Table):
            return self._table(block)
        if isinstance(block, Picture):
            return self._picture(block)
        return self._details(block)

    def _points(self, points: Points) -> str:
        title = f"<p><strong>{_text(points.title)}</strong></p>\n" if points.title else ""
        listed = "\n".join(f"<li>{_text(item)}</li>" for item in points.items)
        name = "warning" if points.warning else "small" if points.small else ""
        return f"<div{_class(name)}>\n{title}<ul>\n{listed}\n</ul>\n</div>"

    def _table(self, table: Table) -> str:
        caption = f"table-{next(self._numbers)}"
        head = "".join(
            f'<th scope="col"{_class("number" * column.numeric)}>{_text(column.title)}</th>' for column in table.columns
        )
        bodies = [table.rows, table.below] if table.below else [table.rows]
        body = "\n".join(f"<tbody>\n{chr(10).join(self._row(table, row) for row in rows)}\n</tbody>" for rows in bodies)
        controls = _class("controlled" * (len(table.rows) >= FEWEST))
        return (
            f'<div class="scroll" role="region" aria-labelledby="{caption}" tabindex="0">\n<table{controls}>\n'
            f'<caption><span id="{caption}">{_text(table.caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n'
            f"{body}\n</table>\n</div>"
        )

    def _row(self, table: Table, row: Sequence[Cell]) -> str:
        cells = [f'<th scope="row"{_sort(cell)}>{_cell(cell)}</th>' for cell in row[: table.num_labels]]
        for cell, column in list(zip(row, table.columns, strict=True))[table.num_labels :]:
            names = " ".join(name for name in ("number" * column.numeric, cell.mark) if name)
            cells.append(f"<td{_class(names)}{_sort(cell)}>{_cell(cell)}</td>")
        return f"<tr>{''.join(cells)}</tr>"

    def _picture(self, picture: Picture) -> str:
        caption = f"<strong>{_text(picture.title)}.</strong> {_text(picture.caption)}"
        svg = f'<div class="scroll" tabindex="0">{_inline_svg(picture.svg)}</div>'
        return f"<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"

    def _details(self, details: Details) -> str:
        inner = "\n".join(self.render(block) for block in details.blocks)
        return f"<details>\n<summary>{_text(details.summary)}</summary>\n{inner}\n</details>"


def _inline_svg(svg: str) -> str:
    """Return an SVG as it can stand inside of HTML: without a head and namespaces."""
    return re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", printable(svg[svg.index("<svg") :].strip()))


def _cell(cell: Cell) -> str:
    detail = f'<span class="detail">{_text(cell.detail)}</span>' if cell.detail else ""
    value = f'<span class="value">{_text(cell.text)}</span>' if cell.mark == "second" else _text(cell.text)
    return value + detail


def _sort(cell: Cell) -> str:
    return "" if cell.sort is None else f' data-sort="{cell.sort!r}"'


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _text(text: str) -> str:
    """Return a text in which nothing is a sign of HTML, without what a terminal would obey."""
    return escape(printable(text), quote=True)
