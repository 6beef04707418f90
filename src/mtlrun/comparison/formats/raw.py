"""Every number of the runs, a line each: for programs that make tables and plots of their own."""

import csv
from collections.abc import Iterator
from typing import IO, Any

from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Comparison
from mtlrun.errors import DataError
from mtlrun.records.folder import METRICS

#: What each line has, before the keys in which the runs differ.
COLUMNS = (
    "data", "run_id", "state", "model", "weighting", "seed", "fold", "task", "metric", "direction", "split", "step",
    "epoch", "selected", "value",
)  # fmt: skip

Line = dict[str, Any]


def raw_lines(comparison: Comparison) -> Iterator[Line]:
    """Yield a line per run, task, metric, split and evaluation: {column: value}, see `COLUMNS`.

    Evaluations during training are those of metrics.jsonl, losses on the training split among them; the result is that
    of the record. `selected` is 1 for an evaluation that the task's result is from, and for the result. `step` and
    `epoch` of a result are those of the checkpoint. A value that is not defined is NaN.
    """
    for table in comparison.tables:
        for row in table.with_runs:
            for run in row.group.runs:
                for line in _lines_of_run(run):
                    yield {"data": table.title, **line, **labels_of(row.group, run)}


def label_columns(comparison: Comparison) -> list[str]:
    """Return the keys in which the runs differ, which follow `COLUMNS`."""
    groups = [row.group for table in comparison.tables for row in table.with_runs]
    keys = dict.fromkeys(key for group in groups for key in (*group.label, *group.mixed))
    return [_label_column(key) for key in keys if key not in COLUMNS or key == "data"]


def describe_losses(comparison: Comparison) -> list[str]:
    """Return what is not among the lines, once they were made: a sentence each."""
    runs = [run for table in comparison.tables for row in table.configs for run in row.group.runs]
    problems = [
        f"{run.folder}/{METRICS}: {run.unreadable_lines} lines are no entries; they are left out"
        for run in runs
        if run.unreadable_lines
    ]
    without = sum(run.folder is None or not (run.folder / METRICS).exists() for run in runs)
    return problems + ([f"{without} of the runs have no {METRICS}; only results are known of them"] if without else [])


def write_raw_csv(comparison: Comparison, file: IO[str]) -> int:
    """Write all lines as CSV, and return their number."""
    writer = csv.DictWriter(file, [*COLUMNS, *label_columns(comparison)], restval="", lineterminator="\n")
    writer.writeheader()
    number = 0
    for line in raw_lines(comparison):
        writer.writerow(line)
        number += 1
    return number


def write_raw_parquet(comparison: Comparison, path: str) -> int:
    """Write all lines as a Parquet file, and return their number.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("Parquet needs pyarrow: pip install 'mtlrun[parquet]'") from error
    lines = list(raw_lines(comparison))
    types = {"seed": pyarrow.int64(), "fold": pyarrow.int64(), "step": pyarrow.int64(), "epoch": pyarrow.int64(),
             "selected": pyarrow.int8(), "value": pyarrow.float64()}  # fmt: skip
    arrays = {}
    for name in (*COLUMNS, *label_columns(comparison)):
        values = [line.get(name) for line in lines]
        if name in types:
            arrays[name] = pyarrow.array([None if value == "" else value for value in values], types[name])
        else:
            arrays[name] = pyarrow.array([None if value is None else str(value) for value in values], pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)
    return len(lines)


def _lines_of_run(run: Run) -> Iterator[Line]:
    record = run.record
    common = {
        "run_id": record.run_id, "state": run.state, "model": run.lookup("model"), "weighting": run.lookup("weighting"),
        "seed": run.lookup("seed"), "fold": "" if run.fold is None else run.fold,
    }  # fmt: skip
    steps = {task: entry for entry in record.selection for task in entry["tasks"]}
    for entry in run.curve():
        split = entry["split"]
        if split == record.result_tag:
            continue
        place = {"split": split, "step": entry.get("step", ""), "epoch": entry.get("epoch", "")}
        for tag, value in entry.items():
            prefix, *names = tag.split("/", 2)
            if prefix == split and len(names) == 2 and names[0] in record.directions:
                task, metric = names
                chosen = split == record.evaluation_tag and steps.get(task, {}).get("step") == entry.get("step")
                direction = record.directions[task].get(metric, "")
                what = {"task": task, "metric": metric, "direction": direction}
                yield {**common, **what, **place, "selected": int(chosen), "value": _number(value)}
    for task, metrics in record.test.items():
        entry = steps.get(task, {})
        place = {"split": record.result_tag, "step": entry.get("step", ""), "epoch": entry.get("epoch", "")}
        for metric, value in metrics.items():
            direction = record.directions.get(task, {}).get(metric, "")
            what = {"task": task, "metric": metric, "direction": direction}
            yield {**common, **what, **place, "selected": 1, "value": value}


def labels_of(group: ConfigGroup, run: Run) -> Line:
    """Return those of `label_columns` that a run has, with its values."""
    mixed = {key: run.lookup(key) for key in group.mixed}
    labels = {**group.label, **mixed}
    return {_label_column(key): value for key, value in labels.items() if key not in COLUMNS or key == "data"}


def _label_column(key: str) -> str:
    """Return the column of a label; that of the content of data may not be taken for their title."""
    return "label data" if key == "data" else key


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
