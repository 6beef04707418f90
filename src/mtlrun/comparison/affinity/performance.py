"""Affinity by performance: what pairs of tasks gain by being trained together, against each task alone."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite, nan

from mtlrun.comparison.affinity.measures import AffinityMatrix, fold
from mtlrun.comparison.affinity.methods import all_tasks, by_method
from mtlrun.comparison.columns import metric_columns
from mtlrun.comparison.deltas import relative_gain
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.run import Run
from mtlrun.comparison.single_task import SingleTaskBaseline, SingleTaskRuns, is_single_task


def gains_of_pairs(groups: Sequence[ConfigGroup]) -> tuple[list[AffinityMatrix], dict[str, str]]:
    """Return a matrix per method by which pairs of tasks were trained, and {measure: why there is none}.

    The gain of a task is the mean over the seeds of the relative change of its main metric on test, in percent, against
    its single-task baseline with the same seed, or where that is missing the mean of the baseline's seeds.

    Args:
        groups: the runs on one data set.
    """
    pairs = [group for group in groups if _is_pair(group.runs[0]) and any(run.record.test for run in group.runs)]
    if not pairs:
        return [], {"gain": "no run has two tasks, such as those of `mtlrun affinity <folder> --pairs <study>`"}
    single_task = SingleTaskRuns(groups)
    tasks = all_tasks(groups)
    found: list[AffinityMatrix] = []
    for label, of_method in by_method(pairs):
        samples: list[dict[tuple[str, str], float]] = []
        notes = ["means over the runs, of the main metric on test"]
        lacking: list[str] = []
        for group in of_method:
            baseline = single_task.of(group.runs[0])
            lacking += [task for task in group.runs[0].record.main_metrics if task not in baseline.runs]
            samples += [_gains(run, group, baseline) for run in group.runs if run.record.test]
        if lacking:
            notes.append(f"without a single-task baseline: {', '.join(sorted(set(lacking)))}")
        repeated = Counter(tuple(sorted(group.runs[0].record.main_metrics)) for group in of_method)
        notes += [f"of {a}, {b} the mean of {n} configs" for (a, b), n in repeated.items() if n > 1]
        if any(isfinite(gain) for of_run in samples for gain in of_run.values()):
            found.append(fold("gain", tasks, samples, label=label, notes=notes))
    why = "the runs of pairs have no single-task baseline: train model=single with the same keys"
    return found, {} if found else {"gain": why}


def _is_pair(run: Run) -> bool:
    return len(run.record.main_metrics) == 2 and not is_single_task(run)


def _gains(run: Run, group: ConfigGroup, baseline: SingleTaskBaseline) -> dict[tuple[str, str], float]:
    """Return {(the other task, task): the gain of the task} of one run of a pair."""
    gains = {}
    columns = {column.task: column for column in metric_columns([group])}
    for task, column in columns.items():
        (other,) = [name for name in columns if name != task]
        alone = [
            single.record.test.get(task, {}).get(column.metric, nan)
            for single in baseline.runs.get(task, [])
            if single.fold == run.fold and single.lookup("seed") == run.lookup("seed")
        ]
        reference = alone[0] if alone and isfinite(alone[0]) else baseline.mean(column, run.fold)
        value = run.record.test.get(task, {}).get(column.metric, nan)
        gains[other, task] = relative_gain(value, reference, column.direction)
    return gains
