"""What of a table is more than noise: intervals of its means, and rank groups of its rows, column by column."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from mtlrun.comparison.columns import DELTA_M, Column
from mtlrun.comparison.groups import SEED_AND_FOLD, ConfigGroup
from mtlrun.comparison.statistics.intervals import t_interval
from mtlrun.comparison.statistics.ranks import ALPHA, rank_groups
from mtlrun.comparison.table import ComparisonTable, Row

#: Between more rows no differences are tested unasked: there are thousands of pairs, of which next to none would be
#: significant after the correction.
MOST_ROWS = 60
_DESCRIBED, _NAMED = 6, 8


def test_to_train(group: ConfigGroup) -> float:
    """Return the ratio that `statistics.intervals.standard_error` takes: 1 / (k - 1) for k folds, else 0."""
    folds = group.num_folds
    return 0.0 if folds is None or folds < 2 else 1 / (folds - 1)


def repetition_word(group: ConfigGroup) -> str:
    """Return what a repetition of a row is: a seed, a fold, or a repetition."""
    if group.num_folds is not None:
        return "fold"
    return "seed" if "seed" in group.over and set(group.over) <= set(SEED_AND_FOLD) else "repetition"


def tested_columns(table: ComparisonTable) -> list[Column]:
    """Return the columns of results, which vary over repetitions; of the Deltas one, if they are each other's negative.

    They are where all tasks have as many metrics.
    """
    metrics: dict[tuple[str, object], int] = {}
    for column in table.metrics:
        task = column.task, column.meaning
        metrics[task] = metrics.get(task, 0) + 1
    alike = len(set(metrics.values())) < 2
    return [
        column
        for column in table.columns
        if column.kind in ("metric", "delta") and not (alike and column.key == DELTA_M.key)
    ]


def tested_values(row: Row, column: Column) -> dict[Any, float]:
    """Return the independent values of a row in a column that are finite; empty if it has none."""
    cell = row.cells.get(column.key)
    if cell is None:
        return {}
    return {key: value for key, value in row.group.independent(cell.values).items() if isfinite(value)}


def add_intervals(table: ComparisonTable, *, shown: bool = False) -> None:
    """Add the t interval of each mean of the rows of configs; `shown` has readers see it.

    In a long table only where they are shown, so that SciPy is not imported for what nobody may look at.
    """
    if not shown and len(table.configs) > MOST_ROWS:
        return
    for row in table.configs:
        for column in table.columns:
            cell = row.cells.get(column.key)
            if cell is not None and column.kind in ("metric", "delta"):
                values = list(tested_values(row, column).values())
                cell.interval = t_interval(values, test_to_train=test_to_train(row.group))
                cell.shows_interval = shown


def add_rank_groups(table: ComparisonTable) -> None:
    """Add the rank group of each row in each column, and sentences on what is inside the noise."""
    rows = table.ranked()
    if len(rows) > MOST_ROWS:
        table.notes.append(
            f"no rank groups: {len(rows)} rows are too many to test each against each; --group-by makes them fewer"
        )
        return
    described: list[str] = []
    alike: list[str] = []
    untested: list[str] = []
    for column in tested_columns(table):
        with_value = [row for row in rows if column.key in row.cells]
        ranks = rank_groups(
            [tested_values(row, column) for row in with_value],
            column.direction,
            test_to_train=max((test_to_train(row.group) for row in with_value), default=0.0),
        )
        for row, rank in zip(with_value, ranks, strict=True):
            row.cells[column.key].rank_group = rank
        if len(with_value) > 1:
            found = {rank for rank in ranks if rank is not None}
            if found - {1}:
                described.append(f"{column.title}: {_describe(with_value, ranks)}")
            else:
                (alike if found else untested).append(column.title)
    if described:
        table.notes += [
            "rank: 1 + the number of rows that are significantly better, by paired t tests of all pairs, corrected in "
            f"each column (Holm, {ALPHA})",
            *(f"ranks by {text}" for text in described[:_DESCRIBED]),
        ]
        if len(described) > _DESCRIBED:
            table.notes.append(f"ranks by {len(described) - _DESCRIBED} more columns are in --format json")
    if alike:
        table.notes.append(f"inside the noise, all rows share rank 1: {', '.join(alike)}")
    if untested and (described or alike):  # otherwise there is a warning
        table.notes.append(
            f"no ranks, since rows have one {repetition_word(rows[0].group)} at most: {', '.join(untested)}"
        )


def _describe(rows: Sequence[Row], ranks: Sequence[int | None]) -> str:
    """Return in words which rows share each rank; of many only their number."""
    by_rank: dict[int, list[str]] = {}
    for row, rank in zip(rows, ranks, strict=True):
        if rank is not None:
            by_rank.setdefault(rank, []).append(row.name)
    texts = {
        rank: "; ".join(names) if len(names) <= _NAMED else f"{len(names)} rows" for rank, names in by_rank.items()
    }
    return " | ".join(f"{rank}: {texts[rank]}" for rank in sorted(texts))
