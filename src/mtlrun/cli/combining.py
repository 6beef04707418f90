"""What the commands that make a result from finished runs have in common: their options, and how it is shown."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from mtlrun.cli.comparing import make_parser, parse
from mtlrun.records.display import UNDEFINED, format_value, has_undefined, make_console, print_line, print_results
from mtlrun.records.record import Record


def combine(
    arguments: Sequence[str],
    command: str,
    description: str,
    epilog: str,
    *,
    folders: str,
    methods: Sequence[str],
    load: Callable[[], Callable[..., Record]],
) -> int:
    """Make a result from finished runs, or show it if there is one; return the exit code.

    Args:
        arguments: of the command.
        command, description, epilog, folders: see `make_parser`.
        methods: the choices of --method, first the default.
        load: returns the function that makes it, of the members, the method, the folder and the device; it imports
            torch.
    """
    parser = make_parser(command, description, epilog, folders=folders)
    parser.add_argument("--method", choices=methods, default=methods[0], help=f"how (default: {methods[0]})")
    _add_options(parser)
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parse(parser, arguments)
    from mtlrun.cli.main import collect_garbage
    from mtlrun.deployment.combined.made_runs import choose_folder
    from mtlrun.deployment.combined.members import find_members

    make = load()
    collect_garbage()
    members = find_members(parsed.folders)
    folder = choose_folder(command, parsed.method, members, parsed.name, parsed.out)
    _show(make(members, parsed.method, folder, device=parsed.device), folder, quiet=parsed.quiet)
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options beside the method."""
    parser.add_argument("--name", metavar="NAME", help="of the folder of the result (default: the method and a hash)")
    parser.add_argument(
        "--out", type=Path, metavar="STUDY", help="the folder that it is in (default: that of the first run)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    parser.add_argument("--quiet", action="store_true", help="print one line only")


def _show(record: Record, folder: Path, *, quiet: bool) -> None:
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
