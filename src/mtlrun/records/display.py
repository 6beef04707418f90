"""The console, and how values and tables are shown on it, shared by commands and training."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, isfinite, isnan, log10, nan
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mtlrun.records.characters import in_ascii, is_unicode
from mtlrun.records.printable import printable
from mtlrun.records.text_table import TextTable

_UNLIMITED = 10_000  # characters of a line

ARROWS = {"max": "↑", "min": "↓"}

# Marks and names a result of the legacy protocol wherever it is shown: the test split was evaluated during training.
MARK = "†"
TEST_SELECTED = "test-selected (dataset.protocol=legacy)"

UNDEFINED = "-: not defined on the labels of the split"


class _Console(Console):
    """A console for any encoding that shows texts without what a terminal would obey; colors and progress are Rich's.

    Where its reader has closed the pipe, it raises an error; Rich would end the program.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(as_shown(self, text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def make_console() -> Console:
    """Return a console on standard output that shows texts as they are, brackets and colons included.

    Lines are wrapped for a terminal only, so that a pipe can be searched.
    """
    return _Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _UNLIMITED)


def print_line(console: Console, line: str) -> None:
    """Print a text as it is: wrapped at words on a terminal, in one line elsewhere."""
    line = as_shown(console, line)
    if console.is_terminal:
        console.print(Text(line))
    else:
        console.file.write(line + "\n")
        console.file.flush()


def print_table(console: Console, table: TextTable, title: str | None = None, *, margin: int = 1) -> None:
    """Print a table with bold titles; where it is wider than the console, its lines are longer than that.

    Args:
        console: where to.
        table: what.
        title: a line above it.
        margin: number of spaces before each line.
    """
    shown = table.map(lambda text: as_shown(console, text))
    header, *lines = (" " * margin + line for line in shown.lines())
    if title is not None:
        console.print(Text(title, style="bold italic"), soft_wrap=True)
    console.print(Text(header, style="bold"), soft_wrap=True)
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def as_shown(console: Console, text: str) -> str:
    """Return a text in characters that are shown, in the console's encoding, so that its width is known."""
    text, encoding = printable(text), console.encoding
    return text if is_unicode(encoding) else in_ascii(text).encode(encoding, "backslashreplace").decode(encoding)


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
    if not isfinite(high - low):
        return f"[{low:g}, {high:g}]"
    largest = max(abs(low), abs(high))
    if largest >= 1e7:
        digits = max(2, ceil(log10(largest)) + ceil(0.7 - log10(high - low))) if high > low else 6
        return f"[{low:.{digits}g}, {high:.{digits}g}]"
    decimals = max(ceil(0.7 - log10(high - low)), 0) if high > low else 4
    if decimals > 4 and largest < 1e-3:
        return f"[{low:.2g}, {high:.2g}]"
    return f"[{low:.{min(decimals, 4)}f}, {high:.{min(decimals, 4)}f}]"


def has_undefined(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bool:
    """Return True if a metric of {split: {task: {metric: value}}} is not defined."""
    return any(isnan(value) for split in metrics.values() for values in split.values() for value in values.values())


def result_table(
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    directions: Mapping[str, Mapping[str, str]],
    intervals: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] | None = None,
    *,
    compact: bool = False,
) -> TextTable:
    """Return a table with a row per task and metric and a column per split; arrows point to better values.

    Baselines are columns, too; one without a task has an empty cell there. A metric that is the loss itself, as
    `log_loss` with cross-entropy, shares its row.

    Args:
        metrics: {split or baseline: {task: {metric: value}}}.
        directions: {task: {metric: "max" or "min"}}.
        intervals: {split: {task: {metric: (low, high)}}}; splits without any have no column for them.
        compact: True for names of tasks in lines of their own, and less space between columns.
    """
    found = intervals or {}
    columns = [title for split in metrics for title in (split, *["95 %"] * bool(found.get(split)))]
    lines: list[list[str] | str] = []
    for task, names in directions.items():
        rows: dict[str, list[str]] = {}
        for metric in names:
            rows[metric] = []
            for split, of_split in metrics.items():
                rows[metric].append(format_value(of_split[task].get(metric, nan)) if task in of_split else "")
                if found.get(split):
                    rows[metric].append(format_interval(found[split].get(task, {}).get(metric)))
        same = [metric for metric in rows if rows[metric] == rows.get("loss") and names[metric] == names["loss"]]
        if compact:
            lines.append(f"{task}:")
        for index, (metric, cells) in enumerate(rows.items()):
            if metric not in same[1:]:
                name = " = ".join(same) if metric in same else metric
                first = [] if compact else [task if index == 0 else ""]
                lines.append([*first, f"{name} {ARROWS[names[metric]]}", *cells])
    if compact:
        return TextTable(["metric", *columns], lines, gap=1)
    return TextTable(["task", "metric", *columns], lines, num_left=2)


def print_results(
    console: Console,
    title: str,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    directions: Mapping[str, Mapping[str, str]],
    intervals: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] | None = None,
) -> None:
    """Print the table of `result_table`, compact if the console is too narrow; nothing is cut off or wrapped."""
    table = result_table(metrics, directions, intervals)
    if table.map(lambda text: as_shown(console, text)).width + 1 <= console.width:
        print_table(console, table, title)
    else:
        print_table(console, result_table(metrics, directions, intervals, compact=True), title, margin=0)
