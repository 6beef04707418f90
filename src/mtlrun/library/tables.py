"""The runs of folders as a table of pandas."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtlrun.comparison.formats.raw import label_columns, labels_of
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.run import Run
from mtlrun.errors import ConfigError

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("mtlrun")


def compare(*folders: str | Path) -> "pandas.DataFrame":
    """Return a table with a row for each run in and below some folders.

    The columns: `data`, what the run was trained on; `run_id`, `folder`, `state`, `model`, `weighting`, `seed`; `fold`
    where there are folds; the keys in which the runs differ, as `mtlrun compare` finds them;
    `test/<task>/<metric>` and `val/<task>/<metric>`; `parameters`, `epochs`, `steps`, and `seconds` of training. A
    result that was selected on the test split, by `dataset.protocol=legacy`, is `test_selected_mean/<task>/<metric>`.
    What a run lacks is NaN. `attrs["directions"]` of the table has `max` or `min` for each column of a metric, and
    `attrs["left_out"]` the files that are no records, which are logged, too.

    `mtlrun compare --raw` has all evaluations during training as well.

    Raises:
        DataError: a folder does not exist, or holds no record.
    """
    import pandas

    if not folders:
        raise ConfigError("compare: name one or more folders, such as outputs/my_study")
    comparison = compare_folders([Path(folder).expanduser() for folder in folders])
    rows: list[dict[str, Any]] = []
    directions: dict[str, str] = {}
    for table in comparison.tables:
        for row in table.with_runs:
            for run in row.group.runs:
                rows.append({"data": table.title, **_identity(run), **labels_of(row.group, run), **_results(run)})
                directions |= _directions(run)
    for problem in comparison.problems:
        logger.warning("%s; it is left out", problem)
    columns = dict.fromkeys(column for row in rows for column in row)
    first = [column for column in columns if "/" not in column and column not in _COSTS]
    labels = [column for column in label_columns(comparison) if column in first]
    last = [column for column in columns if column not in first]
    ordered = [*(column for column in first if column not in labels), *labels, *last]
    frame = pandas.DataFrame(rows, columns=ordered)
    frame.attrs = {"directions": directions, "left_out": list(comparison.problems)}
    return frame


_COSTS = ("parameters", "epochs", "steps", "seconds")


def _identity(run: Run) -> dict[str, Any]:
    """Return what tells a run from others."""
    fold = {} if run.fold is None else {"fold": run.fold}
    found = {"run_id": run.record.run_id, "folder": None if run.folder is None else str(run.folder), "state": run.state}
    return found | {key: run.lookup(key) for key in ("model", "weighting", "seed")} | fold


def _results(run: Run) -> dict[str, Any]:
    """Return the metrics and costs of a run."""
    record = run.record
    splits = {record.result_tag: record.test, "val": record.val}
    metrics = {
        f"{split}/{task}/{metric}": value
        for split, tasks in splits.items()
        for task, values in tasks.items()
        for metric, value in values.items()
    }
    costs = (sum(record.parameters.values()), record.epochs, record.steps, record.seconds.get("train"))
    return metrics | dict(zip(_COSTS, costs, strict=True))


def _directions(run: Run) -> dict[str, str]:
    splits = (run.record.result_tag, "val")
    named = run.record.directions.items()
    return {f"{split}/{task}/{metric}": way for split in splits for task, ways in named for metric, way in ways.items()}
