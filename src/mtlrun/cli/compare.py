"""mtlrun compare <folder> ...: one table of the runs in and below these folders."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from mtlrun.records.comparison import Row, read_records, rows
from mtlrun.records.display import ARROWS, MARK, explain_mark, make_console
from mtlrun.records.record import Record

_USAGE = "usage: mtlrun compare <folder> [<folder> ...]"


def main(arguments: Sequence[str]) -> int:
    """Print a row for each config, in a table per dataset: main metrics on test, mean ± deviation over the seeds."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    records = read_records(Path(argument) for argument in arguments)
    by_dataset: dict[str, list[Record]] = {}
    for record in records:
        by_dataset.setdefault(record.config["names"]["dataset"], []).append(record)
    tables = {name: rows(own) for name, own in by_dataset.items()}
    found = [row for own in tables.values() for row in own]
    console = make_console()
    for name, own in tables.items():
        console.print(_table(own, name if len(tables) > 1 else None))
    averaged = [count for row in found for count in row.averaged()]
    if not all(row.test_selected for row in found):
        unmarked = "not marked: " if averaged else ""
        console.print(f"{unmarked}test metrics on the checkpoint selected on validation")
    if averaged:
        console.print(explain_mark(averaged))
    console.print("mean ± standard deviation over the seeds")
    others = Counter(record.status for record in records if record.status != "completed")
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in others.items())
        console.print(f"not in the means: {counts}")
    return 0


def _table(found: Sequence[Row], title: str | None) -> Table:
    """Return the table of one dataset; a run that has not all the tasks has no number for the others."""
    columns = {
        (task, metric): record.directions[task][metric]
        for row in found
        for record in row.records
        for task, metric in record.main_metrics.items()
    }
    labels = list(dict.fromkeys(key for row in found for key in row.label))
    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="bold")
    for label in labels:
        table.add_column(label)
    for (task, metric), direction in columns.items():
        table.add_column(f"{task} {metric} {ARROWS[direction]}", justify="right")
    table.add_column("seeds", justify="right")
    for row in found:
        cells, counts = [], []
        for task, metric in columns:
            mean, spread, count = row.summary(task, metric)
            cell = "-" if count == 0 else f"{mean:.4f}" if count == 1 else f"{mean:.4f} ± {spread:.4f}"
            cells.append(cell + MARK if row.test_selected and count else cell)
            counts.append(count)
        table.add_row(*(str(row.label.get(label, "")) for label in labels), *cells, str(max(counts, default=0)))
    return table
