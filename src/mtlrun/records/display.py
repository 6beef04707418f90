"""Rich tables and the console, shared by commands and training."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, isnan, log10, nan

from rich.console import Console
from rich.table import Table

ARROWS = {"max": "↑", "min": "↓"}

# Marks and names a result of the legacy protocol wherever it is shown: the test split was evaluated during training.
MARK = "†"
TEST_SELECTED = "test-selected (dataset.protocol=legacy)"

UNDEFINED = "-: not defined on the labels of the split"


def make_console() -> Console:
    """Return a console on standard output; lines are wrapped for a terminal only, so that a pipe can be searched."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)


def explain_mark(evaluations: Iterable[int]) -> str:
    """Return the explanation of the mark.

    Args:
        evaluations: for each run that is shown, the number of evaluations in its mean.
    """
    counts = " or ".join(map(str, sorted(set(evaluations), reverse=True)))
    return (
        f"{MARK} {TEST_SELECTED}: mean over the last {counts} evaluations of the test split; nothing was selected on "
        "validation; compare with results of the same protocol only"
    )


def format_value(value: float, beside: float | None = None) -> str:
    """Return a metric with four decimals, or with about as many digits if it is large or small; "-" for NaN.

    Args:
        value: the metric.
        beside: a value next to which it is shown, and whose number of decimals it gets, as a spread beside its mean.
    """
    size = abs(value if beside is None else beside)
    if isnan(value):
        return "-"
    if 0 < size < 1e-3 or size >= 1e12:
        return f"{value:.3g}"
    return f"{value:.{4 if size < 1000 else 2 if size < 100_000 else 0}f}"


def format_interval(bounds: Sequence[float] | None) -> str:
    """Return an interval with one or two digits of its width, at most four decimals; an empty text for none."""
    if bounds is None:
        return ""
    low, high = bounds
    decimals = max(ceil(0.7 - log10(high - low)), 0) if high > low else 4
    if decimals > 4 and max(abs(low), abs(high)) < 1e-3:
        return f"[{low:.2g}, {high:.2g}]"
    return f"[{low:.{min(decimals, 4)}f}, {high:.{min(decimals, 4)}f}]"


def has_undefined(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bool:
    """Return True if a metric of {split: {task: {metric: value}}} is not defined."""
    return any(isnan(value) for split in metrics.values() for values in split.values() for value in values.values())


def result_table(
    title: str,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    directions: Mapping[str, Mapping[str, str]],
    intervals: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] | None = None,
) -> Table:
    """Return a table with a row per task and metric and a column per split; arrows point to better values.

    Baselines are columns, too; one without a task has an empty cell there.

    Args:
        title: of the table.
        metrics: {split or baseline: {task: {metric: value}}}.
        directions: {task: {metric: "max" or "min"}}.
        intervals: {split: {task: {metric: (low, high)}}}; splits without any have no column for them.
    """
    found = intervals or {}
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("task")
    table.add_column("metric")
    for split in metrics:
        table.add_column(split, justify="right")
        if found.get(split):
            table.add_column("95 %", justify="right")
    for task, names in directions.items():
        for index, (metric, direction) in enumerate(names.items()):
            values = []
            for split, of_split in metrics.items():
                values.append(format_value(of_split[task].get(metric, nan)) if task in of_split else "")
                if found.get(split):
                    values.append(format_interval(found[split].get(task, {}).get(metric)))
            table.add_row(task if index == 0 else "", f"{metric} {ARROWS[direction]}", *values)
    return table
