"""`mtlrun compare <folder> ...`: a table of the runs in and below these folders."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mtlrun.comparison.formats.screen import show
from mtlrun.comparison.reading import compare_folders
from mtlrun.records.display import make_console
from mtlrun.records.printable import printable

_USAGE = "usage: mtlrun compare <folder> [<folder> ...]"


def main(arguments: Sequence[str]) -> int:
    """Print a table for each data set with a row per config: mean ± deviation of main metrics on test.

    Below are the baselines of the runs.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    comparison = compare_folders(Path(argument).expanduser() for argument in arguments)
    for problem in comparison.problems:
        print(printable(f"mtlrun: {problem}; it is left out"), file=sys.stderr)
    show(make_console(), comparison)
    return 0
