"""mtlrun compare <folder> ...: a table of the runs in and below these folders, on the screen or in a file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.table import Comparison, Options
from mtlrun.config.suggest import suggest
from mtlrun.config.words import raise_problems
from mtlrun.errors import ConfigError, StorageError
from mtlrun.records.characters import in_ascii, is_unicode
from mtlrun.records.display import make_console
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
    # A folder may begin with a dash.
    words = [f"./{word}" if word.startswith("-") and Path(word).is_dir() else word for word in arguments]
    parsed = parser.parse_args(words)
    chosen = _choose_format(parsed)
    plots = _choose_plots(parsed)
    out = None if parsed.out is None else Path(parsed.out).expanduser()
    _check_place(out)
    options = options_of(parsed, pareto=parsed.pareto, intervals=parsed.intervals)
    comparison = compare_folders([Path(folder).expanduser() for folder in parsed.folders], options)
    for problem in comparison.problems:
        _complain(f"{problem}; it is left out")
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
                    _complain(line)
    if plots is not None:
        _write_plots(comparison, plots, parsed.plots_format or "svg")
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mtlrun compare",
        description="One table for each data set: a row per config, with mean ± standard deviation over its seeds.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="the runs in and below it are compared")
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
    return raise_problems(parser, "mtlrun compare --help")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is compared, and how."""
    parser.add_argument(
        "--group-by", type=_list, metavar="KEY,...",
        help="the runs of a row have these keys in common, such as weighting or optimizer.lr (default: all keys but "
        "those of --over)",
    )  # fmt: skip
    parser.add_argument(
        "--over", type=_list, metavar="KEY,...",
        help="keys in which the runs of a row differ, over which mean and standard deviation are (default: "
        "seed,dataset.fold)",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", type=_list, default=("main",), metavar="WHICH,...",
        help="main: the main metric of each task (default); all: all but losses; or task/metric, where * stands for "
        "anything",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="NAME",
        help="test the other rows against this one, such as equal: over seeds and over test samples, corrected for "
        "their number",
    )  # fmt: skip


def options_of(parsed: argparse.Namespace, *, pareto: bool, intervals: bool) -> Options:
    """Return what the options of `add_choices` ask for, and what else is to be shown."""
    over = {} if parsed.over is None else {"over": parsed.over}
    return Options(
        metrics=parsed.metrics, by=parsed.group_by, against=parsed.against, pareto=pareto, intervals=intervals, **over
    )


def _list(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names with commas in between")
    return names


def _choose_format(parsed: argparse.Namespace) -> str:
    """Return the format that is asked for.

    Raises:
        ConfigError: it cannot be known, or does not go with the other options.
    """
    suffix = Path(parsed.out).suffix.lower() if parsed.out else ""
    chosen: str | None = parsed.format
    if chosen is None and parsed.out:
        chosen = _SUFFIXES.get(suffix)
        if chosen is None:
            raise ConfigError(
                f"--out {parsed.out}: its suffix names no format; {suggest(suffix, _SUFFIXES, 'suffixes')}"
            )
    if chosen is None:
        chosen = "csv" if parsed.raw else "screen"
    if parsed.raw and chosen not in ("csv", "parquet"):
        raise ConfigError(f"--raw: its format is csv or parquet, not {chosen}")
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
        _complain(sentence)
    names = ", ".join(path.name for path in paths)
    _complain(f"written to {folder}: {names}" if paths else f"no pictures are written to {folder}")


def _check_place(out: Path | None) -> None:
    """Raise ConfigError if a file cannot be where --out says, before a comparison that may take minutes."""
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: this is a folder; name a file in it")


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
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(out, error) from error
    print(printable(f"written to {out}"))


def _write_raw(comparison: Comparison, chosen: str, out: Path | None) -> None:
    from mtlrun.comparison.formats.raw import describe_losses, write_raw_csv, write_raw_parquet

    try:
        if out is None:
            number = write_raw_csv(comparison, sys.stdout)
        elif chosen == "parquet":
            number = write_raw_parquet(comparison, str(out))
        else:
            with open(out, "w", encoding="utf-8", newline="") as file:
                number = write_raw_csv(comparison, file)
    except OSError as error:
        raise StorageError(out or Path("standard output"), error) from error
    for problem in describe_losses(comparison):
        _complain(problem)
    if out is not None:
        print(printable(f"{number:,} lines written to {out}"))


def _complain(text: str) -> None:
    print(printable(f"mtlrun: {text}"), file=sys.stderr)
