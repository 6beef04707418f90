"""Affinity by training: cosines of task gradients and lookahead affinities, as the curves of the runs have them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from math import isfinite
from statistics import fmean

from mtlrun.comparison.affinity.measures import AffinityMatrix, fold
from mtlrun.comparison.affinity.methods import all_tasks, by_method, tasks_of, widest
from mtlrun.comparison.groups import ConfigGroup
from mtlrun.comparison.run import Run
from mtlrun.records.tags import affinity_tag, cosine_tag

#: {pair of tasks: its points, (fraction of the planned training, value)}.
Points = dict[tuple[str, str], list[tuple[float, float]]]

# Parts of the planned training.
_STAGES = ("first third", "second third", "last third")
#: Measure -> (the tags of pairs of tasks, how to get them logged).
_LOGGED: Mapping[str, tuple[Callable[[str, str], str], str]] = {
    "cosine": (
        cosine_tag,
        "weightings of gradients log them; for others, train with trainer.log_gradients_every=<steps>",
    ),
    "lookahead": (affinity_tag, "train with trainer.log_affinity_every=<steps>, such as 10"),
}


def logged_affinities(groups: Sequence[ConfigGroup]) -> tuple[list[AffinityMatrix], dict[str, str]]:
    """Return the matrices of each config, and {measure: why there is none}.

    Args:
        groups: the runs on one data set.
    """
    found: list[AffinityMatrix] = []
    points = {id(run): _points(run, tasks_of(group)) for group in groups for run in group.runs}
    for measure in _LOGGED:
        with_points, notes = widest([group for group in groups if any(points[id(run)][measure] for run in group.runs)])
        for label, of_method in by_method(with_points):
            per_run = [found_in for group in of_method for run in group.runs if (found_in := points[id(run)][measure])]
            found.append(_matrix(measure, all_tasks(of_method), per_run, label, notes))
    measured = {matrix.measure for matrix in found}
    return found, {
        measure: f"no run has logged any; {way}" for measure, (_, way) in _LOGGED.items() if measure not in measured
    }


def _points(run: Run, tasks: Sequence[str]) -> dict[str, Points]:
    """Return {measure: the points of its curves}."""
    points: dict[str, Points] = {measure: {} for measure in _LOGGED}
    tags = {measure: _tags(measure, tasks, tag) for measure, (tag, _) in _LOGGED.items()}
    total = run.record.total_steps
    for line in run.curve():
        step = line.get("step")
        if line.get("split") != "train" or not isinstance(step, int):
            continue
        for measure, of_measure in tags.items():
            for tag in of_measure.keys() & line.keys():
                value = line[tag]
                if isinstance(value, int | float) and isfinite(value):
                    place = step / total if total else 1.0
                    points[measure].setdefault(of_measure[tag], []).append((place, float(value)))
    return points


def _tags(measure: str, tasks: Sequence[str], tag: Callable[[str, str], str]) -> dict[str, tuple[str, str]]:
    """Return {tag: pair of tasks}."""
    pairs = combinations(tasks, 2) if measure == "cosine" else product(tasks, repeat=2)
    return {tag(a, b): (a, b) for a, b in pairs}


def _matrix(
    measure: str,
    tasks: Sequence[str],
    per_run: Sequence[Points],
    label: str,
    notes: Sequence[str],
) -> AffinityMatrix:
    """Return the means over the training, and over each third of it."""
    stages: dict[str, list[dict[tuple[str, str], float]]] = {}
    for number, name in enumerate(_STAGES):
        of_stage = [
            {
                pair: fmean(inside)
                for pair, points in run.items()
                if (inside := [value for part, value in points if number < 3 * part <= number + 1])
            }
            for run in per_run
        ]
        if any(of_stage):
            stages[name] = of_stage
    most = max(len(points) for run in per_run for points in run.values())
    whole = [{pair: fmean(value for _, value in points) for pair, points in run.items()} for run in per_run]
    notes = [f"mean over the training, {most} points of the curves in each run", *notes]
    return fold(measure, tasks, whole, label=label, stages=stages, notes=notes)
