"""`mtlrun compare <folder> ...`: one table of the runs in and below these folders."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from rich.console import Console

from mtlrun.comparison.data_sets import Meaning, group_by_data, meaning_of_task
from mtlrun.comparison.groups import BASELINE, ConfigGroup, group_baselines, group_by_config
from mtlrun.comparison.reading import read_records
from mtlrun.records.display import (
    ARROWS,
    MARK,
    as_shown,
    explain_mark,
    format_value,
    make_console,
    print_line,
    print_table,
)
from mtlrun.records.printable import printable
from mtlrun.records.text_table import TextTable

_MARGIN = 1  # spaces before each line of a table
_USAGE = "usage: mtlrun compare <folder> [<folder> ...]"


def main(arguments: Sequence[str]) -> int:
    """Print a table for each data set with a row per config: mean ± deviation of main metrics on test.

    Below are the baselines of the runs.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    records, problems = read_records(Path(argument).expanduser() for argument in arguments)
    for problem in problems:
        print(printable(f"mtlrun: {problem}; it is left out"), file=sys.stderr)
    tables = {title: group_by_config(runs) for title, runs in group_by_data(records).items()}
    console = make_console()
    for title, groups in tables.items():
        _print_table(console, _table(groups), title if len(tables) > 1 else None)
    all_groups = [group for groups in tables.values() for group in groups]
    averaged = [count for group in all_groups for count in group.averaged_evaluations()]
    if not all(group.test_selected for group in all_groups):
        unmarked = "not marked: " if averaged else ""
        console.print(f"{unmarked}test metrics on the checkpoint selected on validation")
    if any(entry.get("rule") == "per_task" for record in records for entry in record.selection):
        console.print("with trainer.monitor=per_task: of each task on the checkpoint selected for it")
    if averaged:
        console.print(explain_mark(averaged))
    if any(group.num_folds is None for group in all_groups):
        console.print("mean ± standard deviation over the seeds")
    if any(group.num_folds is not None for group in all_groups):
        console.print("with folds: mean ± standard deviation over the folds, each the mean over its seeds")
    if any(_is_undefined(group) for group in all_groups):
        console.print(
            "(n of m): over the n seeds or folds with a value; for the others the metric is not defined, or not finite"
        )
    without_result = Counter(record.status for record in records if record.status != "completed")
    if without_result:
        counts = ", ".join(f"{count} {status}" for status, count in without_result.items())
        console.print(f"not in the means: {counts}")
    return 0


def _print_table(console: Console, table: TextTable, title: str | None) -> None:
    """Print a table; where it is too wide, as several that each begin with what tells the rows apart, or its number."""
    shown = table.map(lambda text: as_shown(console, text))
    room = console.width - _MARGIN
    parts = shown.divide(room)
    if any(part.width > room for part in parts) and table.num_left:
        if title is not None:
            print_line(console, title)
        labels = shown.header[: table.num_left]
        legend = [_describe(labels, row[: table.num_left]) for row in shown.rows]
        for number, words in enumerate(legend, start=1):
            print_line(console, f"{' ' * _MARGIN}#{number}  {words}")
        rows = [[f"#{number}", *row[table.num_left :]] for number, row in enumerate(shown.rows, start=1)]
        title, parts = None, TextTable(["run", *shown.header[table.num_left :]], rows).divide(room)
    for index, part in enumerate(parts):
        print_table(console, part, title if index == 0 else None, margin=_MARGIN)


def _describe(labels: Sequence[str], cells: Sequence[str]) -> str:
    """Return in words what tells a row apart; of a baseline that is a name in the first column."""
    if cells[0].startswith(BASELINE):
        return cells[0]
    return ", ".join(f"{label}={cell}" for label, cell in zip(labels, cells, strict=True) if cell)


def _table(groups: Sequence[ConfigGroup]) -> TextTable:
    """Return the table of one data set; a run without a task has "-" in its column.

    Tasks of one name that are not measured alike have a column each.
    """
    columns = {
        (task, metric, meaning_of_task(record, task)): record.directions[task][metric]
        for group in groups
        for record in group.records
        for task, metric in record.main_metrics.items()
    }
    baselines = group_baselines([record for group in groups for record in group.records])
    labels = list(dict.fromkeys(key for group in groups for key in group.label)) or [""] * bool(baselines)
    titles = []
    for (task, metric, meaning), direction in columns.items():
        others = {other[2] for other in columns if other[:2] == (task, metric)} - {meaning}
        titles.append(f"{task} {metric} {ARROWS[direction]}{_distinguish(meaning, others)}")
    with_folds = any(group.num_folds is not None for group in groups)
    rows = []
    for group in groups:
        cells = [_cell(group, *column) for column in columns]
        counts = _count_runs(group, columns) if with_folds else _count_runs(group, columns)[1:]
        rows.append([*(str(group.label.get(label, "")) for label in labels), *cells, *counts])
    for group in baselines:
        cells = [_cell(group, *column) for column in columns]
        rows.append([group.label[""], *[""] * (len(labels) - 1), *cells])
    return TextTable([*labels, *titles, *["folds"] * with_folds, "seeds"], rows, num_left=len(labels))


def _distinguish(meaning: Meaning, others: Iterable[Meaning]) -> str:
    """Return in parentheses in which parts of its meaning a column differs from others of the same name, if any."""
    parts = [part for index, part in enumerate(meaning) if part and any(other[index] != part for other in others)]
    return f" ({', '.join(parts)})" if parts else ""


def _cell(group: ConfigGroup, task: str, metric: str, meaning: Meaning) -> str:
    """Return mean and spread; with the number of seeds or folds behind them if some of the values are not finite."""
    samples = len(group.samples(task, metric)) if meaning_of_task(group.records[0], task) == meaning else 0
    if not samples:
        return "-"
    mean, spread, count = group.summary(task, metric)
    cell = format_value(mean) if count < 2 else f"{format_value(mean)} ± {format_value(spread, beside=mean)}"
    return cell + (f" ({count} of {samples})" if count < samples else "") + (MARK if group.test_selected else "")


def _is_undefined(group: ConfigGroup) -> bool:
    """Return True if a main metric of one of the runs is not finite."""
    return any(
        not isfinite(value)
        for record in group.records
        for column in record.main_metrics.items()
        for values in group.values(*column).values()
        for value in values
    )


def _count_runs(group: ConfigGroup, columns: Iterable[tuple[str, str, Meaning]]) -> tuple[str, str]:
    """Return in words how many folds and seeds the result of a group is from; the task with the most counts."""
    by_fold = max((group.values(task, metric) for task, metric, _ in columns), key=_num_values, default={})
    counts = {len(values) for values in by_fold.values()} or {0}
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    if group.num_folds is None:
        return "", seeds
    return str(group.num_folds) if len(by_fold) == group.num_folds else f"{len(by_fold)} of {group.num_folds}", seeds


def _num_values(by_fold: Mapping[int | None, Sequence[float]]) -> int:
    return sum(map(len, by_fold.values()))
