"""Differences of all rows to a chosen one, over repetitions and over test samples, corrected for their number."""

from collections.abc import Sequence
from math import isfinite, nan

from mtlrun.comparison.analysis_results import Against, Contrast, Overall
from mtlrun.comparison.columns import Column
from mtlrun.comparison.deltas import relative_gain
from mtlrun.comparison.groups import Repetition
from mtlrun.comparison.run import Run
from mtlrun.comparison.samples import SampleComparison
from mtlrun.comparison.significance import repetition_word, test_to_train, tested_columns, tested_values
from mtlrun.comparison.single_task import is_single_task
from mtlrun.comparison.statistics.friedman import make_blocks, rank_test
from mtlrun.comparison.statistics.improvement import Estimate, interquartile_mean, probability_of_improvement
from mtlrun.comparison.statistics.multiple import holm
from mtlrun.comparison.statistics.paired import compare
from mtlrun.comparison.statistics.power import needed_repetitions
from mtlrun.comparison.statistics.ranks import ALPHA
from mtlrun.comparison.table import ComparisonTable, Row
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError


def hold_against(table: ComparisonTable, name: str, samples: SampleComparison | None = None) -> Against:
    """Return the rows of a table against the one of a name.

    Args:
        table: the rows.
        name: of one of them.
        samples: what the predictions of runs are kept in, to be read once for several calls.

    Raises:
        ConfigError: no row has this name, or several have.
    """
    chosen = find_row(table, name)
    held = [*table.ranked(), *(row for row in table.rows if row.kind == "made")]
    others = [row for row in held if row is not chosen]
    if not any(row is chosen for row in held):
        raise ConfigError(f"--against {name}: its results are test-selected, and those of the other rows are not")
    found = Against(chosen.name, repetition_word(chosen.group))
    samples = samples or SampleComparison()
    for column in tested_columns(table):
        contrasts = [_contrast(row, chosen, column, samples) for row in others]
        _correct(contrasts, chosen.group.num_folds is not None)
        found.contrasts += contrasts
    mains = table.main_columns()
    for row in (chosen, *others):
        improvement = None if row is chosen else probability_of_improvement(_scores(row, mains), _scores(chosen, mains))
        found.overall.append(Overall(row.name, improvement, _gain(row, mains)))
    trained = [row for row in (chosen, *others) if row.kind == "config"]
    complete = [row for row in trained if all(tested_values(row, column) for column in mains)]
    if len(complete) >= 3:
        blocks = make_blocks([([tested_values(row, column) for row in complete], column.direction) for column in mains])
        found.ranks, found.ranked = rank_test(blocks), [row.name for row in complete]
    reasons: dict[str, dict[str, None]] = {}
    for contrast in found.contrasts:
        if contrast.why_not and contrast.over_repetitions is not None:
            reasons.setdefault(contrast.why_not, {})[contrast.title] = None
    found.notes += [f"not over test samples: {', '.join(titles)}: {reason}" for reason, titles in reasons.items()]
    return found


def hold_all_against(tables: Sequence[ComparisonTable], name: str) -> None:
    """Hold the rows of each table against the one of a name, and warn of the tables that have no such row.

    Raises:
        ConfigError: no table has one row of this name.
    """
    errors: dict[str, ConfigError] = {}
    for table in tables:
        try:
            table.against = hold_against(table, name)
        except ConfigError as error:
            errors[table.title] = error
            table.warnings.append(f"nothing was tested: {error}")
    if len(errors) == len(tables):
        texts = [str(error) if len(errors) == 1 else f"{title}: {error}" for title, error in errors.items()]
        raise ConfigError("; ".join(texts))


def find_row(table: ComparisonTable, name: str) -> Row:
    """Return the row of a name, or the only one with these values in its label.

    Args:
        table: to search.
        name: of the row, or some of its values, such as `equal`, or `model=hard, equal`. Where several rows have them,
            those of single-task networks do not count: beside others they are what Deltas are held against. Nor does
            what was made from runs beside these.

    Raises:
        ConfigError: there is none, or there are several.
    """
    exact = [row for row in table.with_runs if row.name == name]
    words = {word.strip() for word in name.split(",")}
    found = exact or [row for row in table.with_runs if words <= _words(row)]
    if len(found) > 1:
        trained = [row for row in found if row.kind == "config"] or found
        found = [row for row in trained if not all(map(is_single_task, row.group.runs))] or trained
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"--against {name}: {len(found)} rows have it: {'; '.join(row.name for row in found)}")
    names = [f'"{row.name}"' if "," in row.name else row.name for row in table.with_runs]
    raise ConfigError(f"--against {name}: no such row; {suggest(name, names, 'rows')}")


def _words(row: Row) -> set[str]:
    """Return the values of a row's label, alone and behind their keys."""
    return {word for key, value in row.label.items() for word in (str(value), f"{key}={value}")}


def _contrast(row: Row, chosen: Row, column: Column, samples: SampleComparison) -> Contrast:
    difference = compare(
        tested_values(row, column),
        tested_values(chosen, column),
        column.direction,
        test_to_train=max(test_to_train(row.group), test_to_train(chosen.group)),
        bootstrap=True,
    )
    contrast = Contrast(row.name, column.key, column.title, difference)
    if column.kind != "metric":
        contrast.why_not = "made of several metrics"
    elif difference is not None:
        found = samples.compare(_runs(row, column), _runs(chosen, column), column.task, column.metric, column.direction)
        if isinstance(found, str):
            contrast.why_not = found
        else:
            contrast.over_samples = found
    return contrast


def _runs(row: Row, column: Column) -> dict[Repetition, Run]:
    """Return the runs of a row that have a finite value in a column."""
    values = row.cells[column.key].values
    return {key: run for key, run in row.group.repetitions().items() if isfinite(values.get(key, nan))}


def _correct(contrasts: Sequence[Contrast], folded: bool) -> None:
    differences = [contrast.over_repetitions for contrast in contrasts]
    over_repetitions = holm([None if found is None else found.p for found in differences])
    over_samples = holm([None if found.over_samples is None else found.over_samples.p for found in contrasts])
    tested = sum(p is not None for p in over_repetitions)
    for contrast, p, p_samples in zip(contrasts, over_repetitions, over_samples, strict=True):
        contrast.p, contrast.p_samples = p, p_samples
        difference = contrast.over_repetitions
        if difference is not None and difference.paired and not folded:
            contrast.needed = needed_repetitions(difference.gain, difference.deviation, ALPHA / tested)


def _scores(row: Row, columns: Sequence[Column]) -> list[list[float]]:
    """Return the values of each run of a row by column, higher is better, NaN where there is none."""
    repetitions = dict.fromkeys(key for column in columns for key in _values(row, column))
    return [
        [(1 if column.direction == "max" else -1) * _values(row, column).get(key, nan) for column in columns]
        for key in repetitions
    ]


def _values(row: Row, column: Column) -> dict[Repetition, float]:
    return row.cells[column.key].values if column.key in row.cells else {}


def _gain(row: Row, columns: Sequence[Column]) -> Estimate | None:
    """Return the interquartile mean of a row's relative gains; None without a single-task baseline."""
    scores = []
    for repetition, run in row.group.repetitions().items():
        baseline = row.baselines.get(repetition)
        if baseline is None or baseline.problems:
            continue
        scores.append(
            [
                relative_gain(
                    _values(row, column).get(repetition, nan), baseline.mean(column, run.fold), column.direction
                )
                for column in columns
            ]
        )
    return interquartile_mean(scores) if any(value == value for of_run in scores for value in of_run) else None
