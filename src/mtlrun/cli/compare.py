"""mtlrun compare <folder> ...: a table of the runs in and below these folders, on the screen or in a file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mtlrun.cli.comparing import (
    add_choices,
    check_place,
    complain,
    format_of,
    make_parser,
    name_left_out,
    options_of,
    parse,
)
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.table import Comparison
from mtlrun.errors import ConfigError
from mtlrun.records.characters import in_ascii, is_unicode
from mtlrun.records.display import make_console
from mtlrun.records.folder import storing
from mtlrun.records.printable import printable

FORMATS = ("screen", "markdown", "csv", "latex", "json", "parquet")
#: Suffix of --out -> format.
_SUFFIXES = {".txt": "screen", ".md": "markdown", ".markdown": "markdown", ".csv": "csv", ".tex": "latex",
             ".json": "json", ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
_EPILOG = """\
examples:
  mtlrun compare outputs/models_digits
  mtlrun compare outputs --metrics all --out table.tex
  mtlrun compare outputs/weightings_digits --against equal --pareto
  mtlrun compare outputs --group-by weighting --over seed,optimizer.lr
  mtlrun compare outputs/weightings_digits --plots pictures
  mtlrun compare outputs --raw --out numbers.csv

docs/comparing.md explains the columns, the single-task baseline and the formats."""


def main(arguments: Sequence[str]) -> int:
    """Compare the runs of some folders; return the exit code."""
    parser = _make_parser()
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parse(parser, arguments)
    chosen = _choose_format(parsed)
    plots = _choose_plots(parsed)
    out = None if parsed.out is None else Path(parsed.out).expanduser()
    if out is not None:
        check_place(out)
    options = options_of(parsed, pareto=parsed.pareto, intervals=parsed.intervals)
    comparison = compare_folders(parsed.folders, options)
    name_left_out(comparison.problems)
    if parsed.raw:
        _write_raw(comparison, chosen, out)
    elif chosen == "screen" and out is None:
        from mtlrun.comparison.formats.screen import show

        show(make_console(), comparison)
    else:
        _put(_text(comparison, chosen), out)
        if chosen == "csv":  # which has no place for them
            for table in comparison.tables:
                for line in (*table.warnings, *table.notes):
                    complain(line)
    if plots is not None:
        _write_plots(comparison, plots, parsed.plots_format or "svg")
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "compare",
        "One table for each data set: a row per config, with mean ± standard deviation over its seeds.",
        _EPILOG,
        folders="compared",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="how the table is written; without it the suffix of --out decides"
    )
    parser.add_argument("--out", metavar="FILE", help="write into this file: .md, .csv, .tex, .json, .txt or .parquet")
    add_choices(parser)
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="show the 95 %% interval of each mean instead of the standard deviation",
    )
    parser.add_argument(
        "--pareto", action="store_true",
        help="add the trade-offs between the tasks: Pareto front, hypervolume, which row wins under which task weights",
    )  # fmt: skip
    parser.add_argument(
        "--plots", metavar="FOLDER", help="also write pictures of the comparison into this folder: docs/comparing.md"
    )
    parser.add_argument("--plots-format", choices=("svg", "png"), help="of the pictures (default: svg)")
    parser.add_argument(
        "--raw", action="store_true",
        help="instead of the table a line per run, task, metric, split and evaluation, as CSV or Parquet",
    )  # fmt: skip
    return parser


def _choose_format(parsed: argparse.Namespace) -> str:
    """Return the format that is asked for.

    Raises:
        ConfigError: it cannot be known, or does not go with the other options.
    """
    chosen: str | None = parsed.format
    if chosen is None and parsed.out:
        chosen = format_of(Path(parsed.out), _SUFFIXES)
    if chosen is None:
        chosen = "csv" if parsed.raw else "screen"
    if parsed.raw and chosen not in ("csv", "parquet"):
        raise ConfigError(f"--raw: its format is csv or parquet, not {chosen}")
    if parsed.raw and (parsed.intervals or parsed.metrics != ("main",)):
        option = "--intervals" if parsed.intervals else "--metrics"
        raise ConfigError(f"{option}: --raw writes every value of every metric, so it has no effect; leave it out")
    if chosen in ("csv", "parquet") and (parsed.against or parsed.pareto):
        option = "--against" if parsed.against else "--pareto"
        raise ConfigError(f"{option}: {chosen} has no place for what it adds; --format json has everything")
    if chosen == "parquet" and not (parsed.raw and parsed.out):
        raise ConfigError("--format parquet: only for --raw, with --out <file>.parquet")
    return chosen


def _choose_plots(parsed: argparse.Namespace) -> Path | None:
    """Return the folder for pictures, if there are to be any.

    Raises:
        ConfigError: they have a format, but no folder, or the folder is a file.
        DataError: Matplotlib is not installed.
    """
    if parsed.plots is None:
        if parsed.plots_format is not None:
            raise ConfigError(f"--plots-format {parsed.plots_format}: only with --plots <folder>")
        return None
    from mtlrun.comparison.plots.style import require_matplotlib

    require_matplotlib()
    folder = Path(parsed.plots).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--plots {parsed.plots}: it is a file, and pictures need a folder")
    return folder


def _write_plots(comparison: Comparison, folder: Path, file_format: Literal["svg", "png"]) -> None:
    """Write pictures, and say what became of them where it does not disturb a table on standard output."""
    from mtlrun.comparison.plots.files import write_pictures

    paths, left_out = write_pictures(comparison, folder, file_format)
    for sentence in left_out:
        complain(sentence)
    names = ", ".join(path.name for path in paths)
    complain(f"written to {folder}: {names}" if paths else f"no pictures are written to {folder}")


def _text(comparison: Comparison, chosen: str) -> str:
    """Return the comparison in one of the formats."""
    if chosen == "markdown":
        from mtlrun.comparison.formats.markdown import as_markdown as convert
    elif chosen == "latex":
        from mtlrun.comparison.formats.latex import as_latex as convert
    elif chosen == "csv":
        from mtlrun.comparison.formats.csv import as_csv as convert
    elif chosen == "json":
        from mtlrun.comparison.formats.json import as_json as convert
    else:
        from mtlrun.comparison.formats.screen import as_text as convert
    return convert(comparison)


def _put(text: str, out: Path | None) -> None:
    """Write a text into a file, or to standard output without what a terminal would obey."""
    if out is None:
        shown = printable(text)
        sys.stdout.write(shown if is_unicode(sys.stdout.encoding) else in_ascii(shown))
        return
    with storing(out):
        out.write_text(text, encoding="utf-8")
    print(printable(f"written to {out}"))


def _write_raw(comparison: Comparison, chosen: str, out: Path | None) -> None:
    from mtlrun.comparison.formats.raw import describe_losses, write_raw_csv, write_raw_parquet

    with storing(out or Path("standard output")):
        if out is None:
            number = write_raw_csv(comparison, sys.stdout)
        elif chosen == "parquet":
            number = write_raw_parquet(comparison, str(out))
        else:
            with open(out, "w", encoding="utf-8", newline="") as file:
                number = write_raw_csv(comparison, file)
    for problem in describe_losses(comparison):
        complain(problem)
    if out is not None:
        print(printable(f"{number:,} lines written to {out}"))
