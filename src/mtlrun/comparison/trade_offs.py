"""The multi-objective view of a table: which rows are on the Pareto front, and for whom each would be the best."""

from collections.abc import Sequence
from math import isclose, isfinite, nan

from mtlrun.comparison.analysis_results import TradeOff, TradeOffs
from mtlrun.comparison.columns import Column
from mtlrun.comparison.pareto import dominates, hypervolume, non_dominated
from mtlrun.comparison.preferences import win_fractions
from mtlrun.comparison.profiles import performance_profile, thresholds
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.errors import DataError

_PERFECT = {"max": 1.0, "min": 0.0}
_MOST_OBJECTIVES = 10  # the time that a hypervolume takes grows exponentially with them


def find_trade_offs(table: ComparisonTable) -> TradeOffs | None:
    """Return the multi-objective view of the main metrics; None with fewer than two of them, or two rows with all."""
    columns = table.main_columns()
    rows = [row for row in table.ranked() if all(isfinite(row.mean(column)) for column in columns)]
    if len(columns) < 2 or len(rows) < 2:
        return None
    directions = [column.direction for column in columns]
    points = [[row.mean(column) for column in columns] for row in rows]
    found = TradeOffs([column.key for column in columns], [])
    for row, point, on_front in zip(rows, points, non_dominated(points, directions), strict=True):
        pairs = zip(rows, points, strict=True)
        better = [] if on_front else [other.name for other, each in pairs if dominates(each, point, directions)]
        found.rows.append(TradeOff(row.name, better))
    found.notes.append("dominance is that of the means; whether a difference is more than noise, ranks and tests show")
    if table.stand_ins():
        found.notes.append(f"by {table.describe_mains()}")
    constants = [_constant(rows, column) for column in columns]
    _add_hypervolume(found, points, columns, constants)
    _add_skills(found, rows, columns, constants)
    return found


def _constant(rows: Sequence[Row], column: Column) -> float:
    """Return what a constant prediction gets on test; NaN where it is not known, or not the same for all runs."""
    values = [
        record.trivial.get("test", {}).get(column.task, {}).get(column.metric, nan)
        for row in rows
        for record in row.group.records
        if record.test
    ]
    alike = bool(values) and all(isclose(value, values[0], rel_tol=1e-6, abs_tol=1e-12) for value in values)
    return values[0] if alike else nan


def _add_hypervolume(
    found: TradeOffs, points: Sequence[Sequence[float]], columns: Sequence[Column], constants: Sequence[float]
) -> None:
    if all(map(isfinite, constants)):
        found.reference, found.reference_is = list(constants), "what a constant prediction gets"
    else:
        worst = {"max": min, "min": max}
        found.reference = [
            worst[column.direction](point[index] for point in points) for index, column in enumerate(columns)
        ]
        found.reference_is = "the worst mean of each column"
    directions = [column.direction for column in columns]
    if len(columns) > _MOST_OBJECTIVES:
        found.notes.append(f"no hypervolume: it is computed for up to {_MOST_OBJECTIVES} objectives")
        return
    try:
        found.hypervolume = hypervolume(points, found.reference, directions)
        for index, row in enumerate(found.rows):
            others = [point for place, point in enumerate(points) if place != index]
            row.added = found.hypervolume - hypervolume(others, found.reference, directions)
    except DataError as error:
        found.notes.append(str(error))


def _add_skills(found: TradeOffs, rows: Sequence[Row], columns: Sequence[Column], constants: Sequence[float]) -> None:
    """Add what needs a common scale of the tasks: 0 is a constant prediction, 1 a perfect one."""
    scales = [
        (constant, _PERFECT[column.direction] - constant) for column, constant in zip(columns, constants, strict=True)
    ]
    skills = [
        [
            [(value - zero) / length if length else nan for value in row.cells[column.key].values.values()]
            for column, (zero, length) in zip(columns, scales, strict=True)
        ]
        for row in rows
    ]
    means = [
        [
            (row.mean(column) - zero) / length if length else nan
            for column, (zero, length) in zip(columns, scales, strict=True)
        ]
        for row in rows
    ]
    # A metric to be maximized whose perfect value is not 1, as of a kind of the user's own, shows by values above it.
    if not all(isfinite(skill) and skill <= 1 + 1e-9 for of_row in means for skill in of_row):
        found.notes.append(
            "no wins and no profiles: tasks have no common scale where it is not known what a constant prediction "
            "gets, or a perfect value is not 1, or 0 of a metric to be minimized"
        )
        return
    every = [[skill for of_task in of_row for skill in of_task] for of_row in skills]
    found.thresholds = thresholds(every)
    for row, wins, scores in zip(found.rows, win_fractions(means), every, strict=True):
        row.wins, row.profile = wins, performance_profile(scores, found.thresholds)
