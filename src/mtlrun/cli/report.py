"""mtlrun report <folder> ...: a comparison as one HTML file, or as Markdown."""

import argparse
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mtlrun.cli.comparing import add_choices, format_of, make_parser, name_left_out, options_of, parse
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.report.content import make_document
from mtlrun.comparison.report.document import Document
from mtlrun.records.folder import open_atomically, storing
from mtlrun.records.printable import printable

_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md"}
_EPILOG = """\
examples:
  mtlrun report outputs/models_digits
  mtlrun report outputs/models_digits -o report.md
  mtlrun report outputs --group-by weighting --metrics all -o weightings.html

docs/comparing.md explains what a report has."""


def main(arguments: Sequence[str]) -> int:
    """Write the report on the runs of some folders; return the exit code."""
    parser = _make_parser()
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parse(parser, arguments)
    chosen = _choose_format(parsed)
    out = Path(parsed.out or f"report.{chosen}").expanduser()
    options = options_of(parsed, pareto=True, intervals=False)
    comparison = compare_folders(parsed.folders, options)
    name_left_out(comparison.problems)
    command = shlex.join(["mtlrun", "report", *arguments])
    document = make_document(comparison, command=command, now=datetime.now().astimezone(), alone=chosen == "md")
    for path, text in _render(document, chosen, out).items():
        _write(path, text)
        print(printable(f"written to {path}"))
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "report",
        "A comparison as one file: the answer, tables, pictures, configs, environment, failures, commands.",
        _EPILOG,
        folders="compared",
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="the file to write (default: report.html)")
    parser.add_argument(
        "--format", choices=("html", "md"), help="html: one file; md: Markdown, with its pictures in a folder beside it"
    )
    add_choices(parser)
    return parser


def _choose_format(parsed: argparse.Namespace) -> str:
    """Return the format that is asked for.

    Raises:
        ConfigError: it is not known.
    """
    if parsed.format or not parsed.out:
        return parsed.format or "html"
    return format_of(Path(parsed.out), _SUFFIXES)


def _render(document: Document, chosen: str, out: Path) -> dict[Path, str]:
    """Return the text of each file."""
    if chosen == "html":
        from mtlrun.comparison.report.html import as_html

        return {out: as_html(document)}
    from mtlrun.comparison.report.markdown import as_markdown

    text, pictures = as_markdown(document, f"{out.stem}_pictures")
    return {out.parent / path: picture for path, picture in pictures.items()} | {out: text}


def _write(path: Path, text: str) -> None:
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path) as file:
            file.write(text.encode("utf-8", "replace"))
