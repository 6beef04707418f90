"""mtlrun ensemble <run> <run> ...: the test metrics of several finished runs together."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtlrun.cli.comparing import make_parser, parse
from mtlrun.records.display import UNDEFINED, format_value, has_undefined, make_console, print_line, print_results
from mtlrun.records.record import Record

METHODS = ("average", "vote", "stack", "bagging")
_EPILOG = """\
methods:
  average  the mean of probabilities, or of numbers in their unit; at each pixel, where there are maps
  vote     the class that most of the runs predict; a tie is decided by the mean probability
  stack    a small model of what the runs predict, fitted to the validation samples
  bagging  the average over runs that drew their training rows, as those of -m study=bagging

examples:
  mtlrun ensemble outputs/mystudy/hard-*
  mtlrun ensemble outputs/mystudy --method vote
  mtlrun compare outputs/mystudy

docs/ensembles.md says what the methods do, and what is in the record."""


def main(arguments: Sequence[str]) -> int:
    """Make an ensemble of finished runs, or show it if there is one; return the exit code."""
    parser = make_parser(
        "ensemble",
        "The test metrics of several finished runs together: what is predicted by all of them.",
        _EPILOG,
        folders="combined",
    )
    parser.add_argument("--method", choices=METHODS, default="average", help="how (default: average)")
    add_options(parser)
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parse(parser, arguments)
    from mtlrun.cli.main import collect_garbage
    from mtlrun.deployment.combined.ensembles import ensemble  # imports torch, as the next two
    from mtlrun.deployment.combined.made_runs import choose_folder
    from mtlrun.deployment.combined.members import find_members

    collect_garbage()
    members = find_members(parsed.folders)
    folder = choose_folder("ensemble", parsed.method, members, parsed.name, parsed.out)
    show(ensemble(members, parsed.method, folder, device=parsed.device), folder, quiet=parsed.quiet)
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the commands that make a result from runs."""
    parser.add_argument("--name", metavar="NAME", help="of the folder of the result (default: the method and a hash)")
    parser.add_argument(
        "--out", type=Path, metavar="STUDY", help="the folder that it is in (default: that of the first run)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    parser.add_argument("--quiet", action="store_true", help="print one line only")


def show(record: Record, folder: Path, *, quiet: bool) -> None:
    """Print the result."""
    console = make_console()
    if quiet:
        metrics = (
            f"{task} {name} {format_value(record.test[task][name])}" for task, name in record.main_metrics.items()
        )
        print_line(console, f"{folder}: test {', '.join(metrics)}")
        return
    results = {"test": record.test, "val": record.val}
    print_results(console, record.config["names"]["made_from"], results, record.directions, record.intervals)
    if has_undefined(results):
        print_line(console, UNDEFINED)
    assert record.made_from is not None
    for run in record.made_from["runs"]:
        print_line(console, f"from {run['folder']}")
    for note in record.notes:
        print_line(console, note)
    print_line(console, str(folder))
