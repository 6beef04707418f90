"""What the commands that read the runs of folders have in common: their words, and where they write."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mtlrun.comparison.table import Options
from mtlrun.config.suggest import suggest
from mtlrun.config.words import raise_problems
from mtlrun.errors import ConfigError
from mtlrun.records.printable import printable


def make_parser(
    command: str, description: str, epilog: str, *, folders: str | None = None, run: str | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a command, which takes folders or one run and raises ConfigError.

    Args:
        command: its name.
        description: what it does.
        epilog: what stands below the options in its help.
        folders: what is done with the runs in the folders; None if it takes none.
        run: what is given as the run; None if it takes none.
    """
    parser = argparse.ArgumentParser(
        f"mtlrun {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if folders is not None:
        parser.add_argument("folders", nargs="+", metavar="FOLDER", help=f"the runs in and below it are {folders}")
    if run is not None:
        parser.add_argument("run", metavar="RUN", type=_path, help=run)
    return raise_problems(parser, f"mtlrun {command} --help")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the arguments ask for; the name of a folder may begin with a dash."""
    words = [f"./{word}" if word.startswith("-") and Path(word).is_dir() else word for word in arguments]
    parsed = parser.parse_args(words)
    parsed.folders = [Path(folder).expanduser() for folder in parsed.folders]
    return parsed


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is compared, and how."""
    parser.add_argument(
        "--group-by", type=names_of, metavar="KEY,...",
        help="the runs of a row have these keys in common, such as weighting or optimizer.lr (default: all keys but "
        "those of --over)",
    )  # fmt: skip
    parser.add_argument(
        "--over", type=names_of, metavar="KEY,...",
        help="keys in which the runs of a row differ, over which mean and standard deviation are (default: "
        "seed,dataset.fold)",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", type=names_of, default=("main",), metavar="WHICH,...",
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


def _path(text: str) -> Path:
    return Path(text).expanduser()


def number_above_0(text: str) -> int:
    """Return the number that an option is given as; the parser names what is none."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, found {text}")
    return int(text)


def names_of(text: str) -> tuple[str, ...]:
    """Return the names that an option is given as, with commas in between; the parser names what is none."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names with commas in between")
    return names


def format_of(out: Path, formats: Mapping[str, str]) -> str:
    """Return the format that the suffix of --out stands for.

    Args:
        out: the file.
        formats: {suffix: format}.

    Raises:
        ConfigError: the suffix stands for none.
    """
    suffix = out.suffix.lower()
    if suffix not in formats:
        raise ConfigError(f"--out {out}: its suffix names no format; {suggest(suffix, formats, 'suffixes')}")
    return formats[suffix]


def check_place(out: Path) -> None:
    """Raise ConfigError if a file cannot be where --out says, before a computation that may take minutes."""
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise ConfigError(f"--out {out}: this is a folder; name a file in it")


def complain(text: str) -> None:
    """Print a line on standard error."""
    print(printable(f"mtlrun: {text}"), file=sys.stderr)


def name_left_out(problems: Iterable[str]) -> None:
    """Print what is wrong with each file that is left out."""
    for problem in problems:
        complain(f"{problem}; it is left out")
