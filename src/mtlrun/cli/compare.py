"""`mtlrun compare <folder> ...`: one table of the runs in and below these folders."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from mtlrun.records.comparison import ConfigGroup, group_by_config, read_records
from mtlrun.records.display import ARROWS, MARK, explain_mark, make_console
from mtlrun.records.record import Record

_USAGE = "usage: mtlrun compare <folder> [<folder> ...]"


def main(arguments: Sequence[str]) -> int:
    """Print a table per dataset with a row per config: main metrics on test, mean ± standard deviation over seeds."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    records = read_records(Path(argument) for argument in arguments)
    by_dataset: dict[str, list[Record]] = {}
    for record in records:
        by_dataset.setdefault(record.config["names"]["dataset"], []).append(record)
    tables = {dataset: group_by_config(runs) for dataset, runs in by_dataset.items()}
    console = make_console()
    for dataset, groups in tables.items():
        console.print(_table(groups, dataset if len(tables) > 1 else None))
    all_groups = [group for groups in tables.values() for group in groups]
    averaged = [count for group in all_groups for count in group.averaged_evaluations()]
    if not all(group.test_selected for group in all_groups):
        unmarked = "not marked: " if averaged else ""
        console.print(f"{unmarked}test metrics on the checkpoint selected on validation")
    if averaged:
        console.print(explain_mark(averaged))
    console.print("mean ± standard deviation over the seeds")
    without_result = Counter(record.status for record in records if record.status != "completed")
    if without_result:
        counts = ", ".join(f"{count} {status}" for status, count in without_result.items())
        console.print(f"not in the means: {counts}")
    return 0


def _table(groups: Sequence[ConfigGroup], title: str | None) -> Table:
    """Return the table of one dataset; a run without a task has "-" in its column."""
    columns = {
        (task, metric): record.directions[task][metric]
        for group in groups
        for record in group.records
        for task, metric in record.main_metrics.items()
    }
    labels = list(dict.fromkeys(key for group in groups for key in group.label))
    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="bold")
    for label in labels:
        table.add_column(label)
    for (task, metric), direction in columns.items():
        table.add_column(f"{task} {metric} {ARROWS[direction]}", justify="right")
    table.add_column("seeds", justify="right")
    for group in groups:
        cells, counts = [], []
        for task, metric in columns:
            mean, spread, count = group.summary(task, metric)
            cell = "-" if count == 0 else f"{mean:.4f}" if count == 1 else f"{mean:.4f} ± {spread:.4f}"
            cells.append(cell + MARK if group.test_selected and count else cell)
            counts.append(count)
        table.add_row(*(str(group.label.get(label, "")) for label in labels), *cells, str(max(counts, default=0)))
    return table
