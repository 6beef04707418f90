"""The comparison of some runs, made from their records."""

from collections.abc import Sequence
from math import isnan

from mtlrun.comparison.against import hold_all_against
from mtlrun.comparison.analyses import add_analyses
from mtlrun.comparison.columns import (
    DELTA_M,
    DELTA_P,
    MEAN_RANK,
    SECONDS_PER_STEP,
    Column,
    check_metrics,
    metric_columns,
)
from mtlrun.comparison.commands import single_task_commands
from mtlrun.comparison.costs import measure_costs
from mtlrun.comparison.data_sets import group_by_data
from mtlrun.comparison.deltas import delta_m, delta_p, is_near_zero, mean_ranks, relative_gain
from mtlrun.comparison.formats.values import format_number
from mtlrun.comparison.groups import (
    SEED_AND_FOLD,
    ConfigGroup,
    Repetition,
    check_keys,
    group_by_config,
    mean_and_spread,
)
from mtlrun.comparison.predictors import group_predictors
from mtlrun.comparison.run import Run
from mtlrun.comparison.single_task import SingleTaskRuns, is_single_task
from mtlrun.comparison.table import Cell, Comparison, ComparisonTable, Options, Row
from mtlrun.records.display import explain_mark, format_value
from mtlrun.records.record import Record


def compare(runs: Sequence[Run], options: Options | None = None) -> Comparison:
    """Return the comparison of some runs: a table for each data set.

    Raises:
        ConfigError: the options name a key, a metric or a row that does not exist.
    """
    options = options or Options()
    check_keys("--over", options.over, runs)
    check_keys("--group-by", options.by or (), runs)
    by_record = {id(run.record): run for run in runs}
    data_sets = group_by_data([run.record for run in runs])
    tables = [
        build_table(title, [by_record[id(record)] for record in records], options)
        for title, records in data_sets.items()
    ]
    check_metrics([row.group for table in tables for row in table.with_runs], options.metrics)
    if options.against is not None:
        hold_all_against(tables, options.against)
    return Comparison(tables, _describe_numbers(tables, [run.record for run in runs], options), options=options)


def build_table(title: str, runs: Sequence[Run], options: Options) -> ComparisonTable:
    """Return the table of the runs on one data set."""
    groups = group_by_config(runs, over=options.over, by=options.by)
    columns = metric_columns(groups, options.metrics)
    rows = [Row(group) for group in groups if not group.made]
    _find_missing(rows)
    rows += [Row(group, "made") for group in groups if group.made]
    rows += [Row(group, "predictor") for group in group_predictors(runs)]
    labels = list(dict.fromkeys(key for group in groups for key in group.label)) or [""] * (len(rows) > len(groups))
    table = ComparisonTable(title, labels, columns, rows)
    for row in rows:
        _fill_metrics(row, columns)
    _describe_mixed(table)
    _describe_made(table)
    whole_configs = groups if options.by is None and options.over == SEED_AND_FOLD else group_by_config(runs)
    _add_deltas(table, SingleTaskRuns(whole_configs))
    _add_mean_rank(table)
    _add_costs(table)
    for column in table.columns:
        if column.kind in ("metric", "delta", "rank"):
            _find_places(table, column)
    add_analyses(table, options)
    return table


def _fill_metrics(row: Row, columns: Sequence[Column]) -> None:
    for column in columns:
        values = row.group.results(column.task, column.metric, column.meaning)
        if values:
            row.cells[column.key] = Cell(values, list(row.group.independent(values).values()))


def _find_missing(rows: Sequence[Row]) -> None:
    """Find the repetitions that other rows have; what a row mixes is not counted."""
    length = len(rows[0].group.over) if rows else 0
    found = [dict.fromkeys(row.group.repetition(run)[:length] for run in row.group.runs) for row in rows]
    every = dict.fromkeys(repetition for of_row in found for repetition in of_row)
    for row, of_row in zip(rows, found, strict=True):
        row.missing = [repetition for repetition in every if repetition not in of_row]


def _describe_mixed(table: ComparisonTable) -> None:
    mixed = table.rows[0].group.mixed if table.rows else ()
    if mixed:
        table.notes.append(f"rows put runs together that differ in {', '.join(mixed)}")


def _describe_made(table: ComparisonTable) -> None:
    if any(row.kind == "made" for row in table.rows):
        table.notes.append(
            "rows that were made from runs have no rank; the parameters of an ensemble are those of all of its runs"
        )


def _add_deltas(table: ComparisonTable, single_task: SingleTaskRuns) -> None:
    """Add both Deltas, if a row has one, and name what has no baseline."""
    without: list[Run] = []
    problems: dict[str, list[str]] = {}
    undefined: dict[str, None] = {}
    near_zero: dict[str, None] = {}
    sets: dict[str, None] = {}
    for row in table.with_runs:
        by_m: dict[Repetition, float] = {}
        by_p: dict[Repetition, float] = {}
        for repetition, run in row.group.repetitions().items():
            baseline = row.baselines[repetition] = single_task.of(run)
            for task, problem in baseline.problems.items():
                if row.kind == "config":
                    problems.setdefault(problem, []).append(task)
                    without.append(run)
            if baseline.problems or not all(repetition in _values(row, column) for column in table.metrics):
                continue
            gains: dict[str, list[float]] = {}
            for column in table.metrics:
                reference = baseline.mean(column, run.fold)
                gain = relative_gain(_values(row, column)[repetition], reference, column.direction)
                gains.setdefault(column.task, []).append(gain)
                if isnan(reference) or reference == 0:
                    undefined[f"{column.title} {format_value(reference)}"] = None
                elif is_near_zero(of_baseline := baseline.values(column, run.fold)):
                    spread = format_value(mean_and_spread(of_baseline)[1], beside=reference)
                    near_zero[f"{column.title} {format_value(reference)} ± {spread}"] = None
            if row.kind == "config" and not is_single_task(run):
                sets[repr({task: sorted(each.record.run_id for each in of) for task, of in baseline.runs.items()})] = (
                    None
                )
            by_m[repetition], by_p[repetition] = delta_m(gains), delta_p(gains)
        for column, values in ((DELTA_M, by_m), (DELTA_P, by_p)):
            if any(not isnan(value) for value in values.values()):
                row.cells[column.key] = Cell(values, list(row.group.independent(values).values()))
    _describe_deltas(table, problems, list(undefined))
    if near_zero:
        table.warnings.append(
            f"Δm and Δp are made large by a single-task baseline that is hardly known from 0: {', '.join(near_zero)}"
        )
    if len(sets) > 1:
        table.warnings.append(
            f"Δm and Δp are against {len(sets)} different single-task baselines, each trained as its rows were: a "
            "better Delta may be that of a worse baseline"
        )
    if without:
        seeds = dict.fromkeys(run.lookup("seed") for row in table.configs for run in row.group.runs)
        folds = dict.fromkeys(run.fold for row in table.configs for run in row.group.runs if run.fold is not None)
        table.commands += single_task_commands(without, list(seeds), list(folds))


def _values(row: Row, column: Column) -> dict[Repetition, float]:
    cell = row.cells.get(column.key)
    return cell.values if cell is not None else {}


def _describe_deltas(table: ComparisonTable, problems: dict[str, list[str]], undefined: Sequence[str]) -> None:
    held = [row for row in table.with_runs if not all(map(is_single_task, row.group.runs))]
    if any(DELTA_M.key in row.cells for row in held):
        table.columns += [DELTA_M, DELTA_P]
        table.notes.append(
            "Δm and Δp: change against the single-task baseline in %, over the metrics shown; Δm is the mean over "
            "metrics, lower is better, Δp the mean over tasks, higher is better"
        )
    for problem, tasks in problems.items():
        names = ", ".join(dict.fromkeys(tasks))
        table.notes.append(f"no Δm and Δp without a single-task baseline of {names}: {problem}")
    if undefined:
        table.notes.append(
            f"Δm and Δp are not defined where the single-task baseline is 0 or undefined: {', '.join(undefined)}"
        )


def _add_mean_rank(table: ComparisonTable) -> None:
    """Add the mean rank of the rows that have all metrics, if there are several."""
    rows = table.ranked()
    means = [[row.mean(column) for column in table.metrics] for row in rows]
    found = mean_ranks(means, [column.direction for column in table.metrics])
    number = sum(not isnan(rank) for rank in found)
    if number < 2:
        return
    table.columns.append(MEAN_RANK)
    for row, rank in zip(rows, found, strict=True):
        if not isnan(rank):
            row.cells[MEAN_RANK.key] = Cell({(): rank})
    left_out = len(table.configs) - number
    others = f"; {left_out} that lack a metric or are test-selected have none" if left_out else ""
    table.notes.append(f"mean rank: over the metrics shown, among {number} rows, ties averaged; 1 is best{others}")


def _add_costs(table: ComparisonTable) -> None:
    costs, notes = measure_costs([row.group for row in table.with_runs])
    for row, of_row in zip(table.with_runs, costs, strict=True):
        row.cells |= {column.key: Cell(values) for column, values in of_row.items() if values}
    columns = dict.fromkeys(column for of_row in costs for column in of_row)
    shown = [column for column in columns if any(column.key in row.cells for row in table.rows)]
    table.columns += shown
    if SECONDS_PER_STEP in shown:
        table.notes.append("ms/step: the time of the training, with its evaluations and checkpoints, over its steps")
    table.notes += notes if shown else []


def _find_places(table: ComparisonTable, column: Column) -> None:
    """Mark the best and the second best mean of a column; means that look alike share their place."""
    cells = [row.cells[column.key] for row in table.ranked() if column.key in row.cells]
    cells = [cell for cell in cells if cell.n]
    if len(cells) < 2:
        return
    sign = -1 if column.direction == "max" else 1
    ordered = sorted(cells, key=lambda cell: sign * cell.mean)
    texts = dict.fromkeys(format_number(column, cell.mean) for cell in ordered)
    places = {text: place for place, text in enumerate(texts, start=1)}
    for cell in cells:
        place = places[format_number(column, cell.mean)]
        cell.place = place if place <= 2 else 0


def _describe_numbers(tables: Sequence[ComparisonTable], records: Sequence[Record], options: Options) -> list[str]:
    """Return what the numbers of all tables are."""
    groups: list[ConfigGroup] = [row.group for table in tables for row in table.configs]
    averaged = [count for group in groups for count in group.averaged_evaluations()]
    notes = []
    if not all(group.test_selected for group in groups):
        unmarked = "not marked: " if averaged else ""
        notes.append(f"{unmarked}test metrics on the checkpoint selected on validation")
    if any(entry.get("rule") == "per_task" for record in records for entry in record.selection):
        notes.append("with trainer.monitor=per_task: of each task on the checkpoint selected for it")
    if averaged:
        notes.append(explain_mark(averaged))
    over = groups[0].over if groups else SEED_AND_FOLD
    numbers = "mean [95 % interval by Student's t]" if options.intervals else "mean ± standard deviation"
    each = ", each the mean over its runs" if any(group.mixed for group in groups) else ""
    if over != SEED_AND_FOLD:
        notes.append(f"{numbers} over {', '.join(over)}{each}")
    elif any(group.num_folds is None for group in groups):
        notes.append(f"{numbers} over the seeds{each}")
    if any(group.num_folds is not None for group in groups):
        notes.append(f"with folds: {numbers} over the folds, each the mean over its seeds")
    if any(_is_undefined(table) for table in tables):
        notes.append(
            "(n of m): over the n seeds or folds with a value; for the others the metric is not defined, or not finite"
        )
    return notes


def _is_undefined(table: ComparisonTable) -> bool:
    """Return True if a metric of one of the runs is not finite."""
    return any(cell.n < cell.of for row in table.configs for cell in row.cells.values())
