"""Columns of a comparison: the metrics of the tasks, and what is made of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from mtlrun.comparison.data_sets import Meaning
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError

Direction = Literal["max", "min"]
Kind = Literal["metric", "delta", "rank", "time", "memory", "parameters"]


@dataclass(frozen=True)
class Column:
    """A number that each row of a table has.

    Args:
        key: its name in files, such as `left/accuracy` or `delta_m`.
        title: its name for readers, without the arrow.
        direction: which values are better.
        kind: a metric of a task, or which other number.
        task, metric: of a metric.
        meaning: of the task, `Run.meaning`: results of tasks that are not measured alike are in a column each.
    """

    key: str
    title: str
    direction: Direction
    kind: Kind = "metric"
    task: str = ""
    metric: str = ""
    meaning: Meaning | None = None


DELTA_M = Column("delta_m", "Δm %", "min", "delta")
DELTA_P = Column("delta_p", "Δp %", "max", "delta")
MEAN_RANK = Column("mean_rank", "mean rank", "min", "rank")
SECONDS_PER_STEP = Column("seconds_per_step", "ms/step", "min", "time")
PEAK_MEMORY = Column("peak_memory_mib", "peak MiB", "min", "memory")
PARAMETERS = Column("parameters", "parameters", "min", "parameters")


def metric_columns(groups: Sequence[ConfigGroup], chosen: Sequence[str] = ("main",)) -> list[Column]:
    """Return the columns of the metrics that are asked for, in the order of the tasks, or of the patterns.

    Args:
        groups: the rows.
        chosen: `main` for the main metric of each task, `all` for all but losses, or `task/metric` with * for anything.

    A pattern that matches nothing adds nothing; see `check_metrics`.
    """
    found, main = _all_metrics(groups)
    columns: dict[Column, None] = {}
    for pattern in chosen:
        if pattern == "main":
            matching = [column for column in found if column in main]
        elif pattern == "all":
            matching = [column for column in found if column.metric != "loss" or column in main]
        else:
            matching = [column for column in found if fnmatchcase(column.key, pattern)]
        columns |= dict.fromkeys(matching)
    return _distinguish(list(columns))


def check_metrics(groups: Sequence[ConfigGroup], chosen: Sequence[str]) -> None:
    """Raise ConfigError if one of the patterns of `metric_columns` matches no metric of these rows."""
    patterns = [pattern for pattern in chosen if pattern not in ("main", "all")]
    known = list(dict.fromkeys(column.key for column in _all_metrics(groups)[0])) if patterns else []
    for pattern in patterns:
        if known and not any(fnmatchcase(key, pattern) for key in known):
            allowed = suggest(pattern, ["main", "all", *known], "metrics")
            raise ConfigError(f"--metrics {pattern}: no run has this metric; {allowed}")


def _all_metrics(groups: Sequence[ConfigGroup]) -> tuple[list[Column], set[Column]]:
    """Return a column for each metric of each task, and those of main metrics."""
    by_task: dict[tuple[str, Meaning], dict[Column, None]] = {}
    main: set[Column] = set()
    for run in (run for group in groups for run in group.runs):
        record = run.record
        for task, main_metric in record.main_metrics.items():
            meaning = run.meaning(task)
            columns = by_task.setdefault((task, meaning), {})
            # Main metrics first, so that the table begins with what it has without --metrics.
            for metric in (main_metric, *record.directions[task]):
                direction: Direction = "max" if record.directions[task][metric] == "max" else "min"
                column = Column(f"{task}/{metric}", f"{task} {metric}", direction, "metric", task, metric, meaning)
                columns[column] = None
                if metric == main_metric:
                    main.add(column)
    return [column for columns in by_task.values() for column in columns], main


def _distinguish(columns: Sequence[Column]) -> list[Column]:
    """Return the columns with other names where two are called the same, since they are not measured alike."""
    distinct = []
    for column in columns:
        others = [other.meaning for other in columns if other.key == column.key and other.meaning != column.meaning]
        words = _difference(column.meaning, [other for other in others if other is not None])
        distinct.append(replace(column, key=column.key + words, title=column.title + words) if words else column)
    return distinct


def _difference(meaning: Meaning | None, others: Iterable[Meaning]) -> str:
    """Return in parentheses in which parts of its meaning a column differs from others of the same name, if any."""
    parts = [part for index, part in enumerate(meaning or ()) if part and any(other[index] != part for other in others)]
    return f" ({', '.join(parts)})" if parts else ""
