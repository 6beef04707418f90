"""The comparison as data: what all formats print, and what statistics, plots and reports add to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal

from mtlrun.comparison.analysis_results import Against, TradeOffs, Tuning
from mtlrun.comparison.columns import Column
from mtlrun.comparison.groups import SEED_AND_FOLD, ConfigGroup, Repetition, mean_and_spread
from mtlrun.comparison.single_task import SingleTaskBaseline


@dataclass(frozen=True)
class Options:
    """What a comparison shows.

    Args:
        metrics: `main`, `all`, or task/metric with * for anything; several are put together.
        by: keys or groups that the runs of a row have in common; None for all but those of `over`.
        over: keys in which the runs of a row differ.
        against: name of the row that the others are tested against; None for none.
        pareto: whether to add the multi-objective view.
        intervals: whether readers see the interval of a mean in place of the standard deviation.
    """

    metrics: tuple[str, ...] = ("main",)
    by: tuple[str, ...] | None = None
    over: tuple[str, ...] = SEED_AND_FOLD
    against: str | None = None
    pareto: bool = False
    intervals: bool = False


@dataclass
class Cell:
    """The values of one row in one column.

    Args:
        values: of each repetition, NaN where the metric is not defined.
        samples: what the mean is over, `ConfigGroup.independent` of these values; None for the values.
        place: 1 if no other row is better, as far as the shown digits tell, 2 if only the rows with 1 are; else 0.
        interval: around the mean, over the repetitions; None where none was computed.
        shows_interval: whether readers see the interval in place of the standard deviation.
        rank_group: 1 + the number of rows that are significantly better; None where nothing could be tested.
    """

    values: dict[Repetition, float]
    samples: Sequence[float] | None = None
    place: int = 0
    interval: tuple[float, float] | None = None
    shows_interval: bool = False
    rank_group: int | None = None

    def __post_init__(self) -> None:
        self.samples = list(self.values.values()) if self.samples is None else self.samples
        self.mean, self.std, self.n = mean_and_spread(self.samples)

    @property
    def of(self) -> int:
        """The number of samples, those that are not defined among them."""
        return len(self.samples or ())


@dataclass
class Row:
    """One row of a table.

    Args:
        group: its runs.
        kind: `config` for trained runs; `made` for what was made from them, such as an ensemble; `predictor` for a
            simple predictor, such as a constant. The latter two are beside the methods and have no place.
        cells: {key of the column: cell}; a row lacks those that it has nothing for.
        missing: repetitions that other rows have, and this one has no run of.
        baselines: the single-task baseline of each repetition.
    """

    group: ConfigGroup
    kind: Literal["config", "made", "predictor"] = "config"
    cells: dict[str, Cell] = field(default_factory=dict)
    missing: list[Repetition] = field(default_factory=list)
    baselines: dict[Repetition, SingleTaskBaseline] = field(default_factory=dict)

    @property
    def label(self) -> dict[str, Any]:
        """What tells this row from the others, {key: value}."""
        return self.group.label

    @property
    def name(self) -> str:
        """A short text that tells this row from the others."""
        return f"baseline {self.label['']}" if self.kind == "predictor" else self.group.name

    def mean(self, column: Column) -> float:
        """Return the mean in a column, NaN if the row has none."""
        cell = self.cells.get(column.key)
        return cell.mean if cell is not None else nan

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs in each state: `completed` first, and `missing` last."""
        states = self.group.states
        counts = {"completed": states.pop("completed", 0), **states, "missing": len(self.missing)}
        return {state: count for state, count in counts.items() if count or state == "completed"}


@dataclass
class ComparisonTable:
    """The table of one data set.

    Args:
        title: name of the data set.
        labels: keys in which the rows differ.
        columns: metrics first, then Deltas, the mean rank and costs, as far as there are any.
        rows: of configs, then what was made from their runs, then simple predictors.
        notes: sentences on what the numbers are.
        warnings: sentences on what makes a comparison of the rows doubtful.
        commands: what makes the single-task baselines that are missing.
        tuning: of methods whose numbers, such as learning rates, were swept; None where none were.
        against: the rows against the one that was asked for.
        trade_offs: the multi-objective view, where it was asked for.
    """

    title: str
    labels: list[str]
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    tuning: Tuning | None = None
    against: Against | None = None
    trade_offs: TradeOffs | None = None

    @property
    def metrics(self) -> list[Column]:
        """The columns of metrics."""
        return [column for column in self.columns if column.kind == "metric"]

    @property
    def configs(self) -> list[Row]:
        """The rows of configs, without simple predictors and what was made from runs."""
        return [row for row in self.rows if row.kind == "config"]

    @property
    def with_runs(self) -> list[Row]:
        """The rows of configs, and those of what was made from their runs."""
        return [row for row in self.rows if row.kind != "predictor"]

    def ranked(self) -> list[Row]:
        """Return the rows that are held against each other: those of configs, of one protocol."""
        selected_on_validation = [row for row in self.configs if not row.group.test_selected]
        return selected_on_validation or self.configs

    def main_columns(self) -> list[Column]:
        """Return one column per task: that of its main metric, or if it is not shown, the first one."""
        by_task: dict[object, list[Column]] = {}
        for column in self.metrics:
            by_task.setdefault((column.task, column.meaning), []).append(column)
        return [next(filter(self._is_main, columns), columns[0]) for columns in by_task.values()]

    def stand_ins(self) -> list[Column]:
        """Return those of `main_columns` that stand in for a main metric that is not shown."""
        return [column for column in self.main_columns() if not self._is_main(column)]

    def describe_mains(self) -> str:
        """Return what `main_columns` are, as part of a sentence."""
        titles = ", ".join(column.title for column in self.stand_ins())
        return (
            f"the main metrics, or where they are not shown the first ones: {titles}" if titles else "the main metrics"
        )

    def _is_main(self, column: Column) -> bool:
        records = [record for row in self.with_runs for record in row.group.records]
        return any(record.main_metrics.get(column.task) == column.metric for record in records)


@dataclass
class Comparison:
    """The tables of all data sets among some runs.

    Args:
        tables: one for each data set.
        notes: sentences on what the numbers of all tables are.
        problems: files that are no records, or cannot be compared: a sentence each.
        options: what was asked for.
    """

    tables: list[ComparisonTable]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    options: Options = field(default_factory=Options)
