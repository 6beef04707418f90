"""What the commands and the training put on the screen alike."""

import sys
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

ARROWS = {"max": "↑", "min": "↓"}

# A result of the legacy protocol is marked and called so wherever it is shown: it is no honest test result.
MARK = "†"
TEST_SELECTED = "test-selected (dataset.protocol=legacy)"


def make_console() -> Console:
    """Return a console on standard output, which knows whether a person or a pipe reads it."""
    # Into a pipe nothing is wrapped or cut: a line stays a line for grep.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)


def explain_mark(evaluations: Iterable[int]) -> str:
    """Return what the mark stands for.

    Args:
        evaluations: over how many the means are, of each run that is shown.
    """
    counts = " or ".join(map(str, sorted(set(evaluations), reverse=True)))
    return (
        f"{MARK} {TEST_SELECTED}: mean over the last {counts} evaluations of the test split; nothing was selected on "
        "validation; compare with results of the same protocol only"
    )


def result_table(
    title: str,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    directions: Mapping[str, Mapping[str, str]],
) -> Table:
    """Return one row per task and metric, one column per split in `metrics`, with arrows to where better is."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("task")
    table.add_column("metric")
    for split in metrics:
        table.add_column(split, justify="right")
    for task, names in directions.items():
        for index, (metric, direction) in enumerate(names.items()):
            values = [f"{split[task][metric]:.4f}" if task in split else "-" for split in metrics.values()]
            table.add_row(task if index == 0 else "", f"{metric} {ARROWS[direction]}", *values)
    return table
