"""mtlrun tensorboard <folder> ...: a curve per method for TensorBoard, beside those of its runs."""

from collections.abc import Sequence
from pathlib import Path

from mtlrun.cli.comparing import name_left_out
from mtlrun.comparison.event_summary import SUMMARY, summarize
from mtlrun.records.display import make_console, print_line

_USAGE = "usage: mtlrun tensorboard <folder> [<folder> ...]"


def main(arguments: Sequence[str]) -> int:
    """Write mean and band over the seeds of each method, and print what was written and how to see it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    folders = [Path(argument).expanduser() for argument in arguments]
    summaries, problems = summarize(folders)
    name_left_out(problems)
    console = make_console()
    for summary in summaries:
        runs = sum(summary.methods.values())
        found = f"methods: {len(summary.methods)}, runs: {runs}" if runs else "no method has two completed runs"
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(summary.left_out.items()))
        print_line(console, f"{summary.folder / SUMMARY}: {found}" + (f"; left out: {reasons}" if reasons else ""))
    for folder in folders:
        print_line(console, f"to see it: tensorboard --logdir {folder}")
    return 0
