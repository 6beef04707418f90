"""Measures of affinity, and the matrix that each of them gives for the tasks of some runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean, stdev
from typing import Literal

from mtlrun.comparison.columns import Direction

Family = Literal["data", "model", "training", "performance"]

#: Values by pair of tasks: {(task, other): value}, what `task` does to `other` where a measure has a direction.
Pairs = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Measure:
    """A way to tell how two tasks are related.

    Args:
        family: what it looks at.
        title: its name for readers.
        reading: how to read a value, in one line.
        direction: "max" if tasks with higher values are closer, "min" if those with lower ones are.
        mutual: True if a value is of a pair, whichever of the two tasks comes first.
        signed: True if values above 0 mean help and values below it harm.
        alone: what a task that is trained alone counts in a grouping; None for what it counts in one network of all.
    """

    family: Family
    title: str
    reading: str
    direction: Direction = "max"
    mutual: bool = True
    signed: bool = False
    alone: float | None = None


MEASURES: Mapping[str, Measure] = {
    "labels": Measure(
        "data",
        "association of labels",
        "0: none, 1: one follows from the other; on the training samples that carry both labels",
    ),
    "overlap": Measure(
        "data", "overlap of labeled samples", "training samples with both labels, of those with one of the two"
    ),
    "distance": Measure(
        "model",
        "distance of parameters",
        "between the tasks' networks, which started equal; 0: equal, 1: as far as they are long",
        direction="min",
    ),
    "mixing": Measure(
        "model",
        "learned mixing weights",
        "fraction of the weights in the mixture of a column's task that the network of a row's task has",
        mutual=False,
    ),
    "cka": Measure("model", "CKA of single-task features", "0: unrelated, 1: equal up to rotation and scale"),
    "cosine": Measure("training", "cosine of task gradients", "below 0: the tasks conflict", signed=True),
    "lookahead": Measure(
        "training",
        "lookahead affinity",
        "relative fall of the loss of a column's task by a step on the loss of a row's task; below 0: it rises",
        mutual=False,
        signed=True,
    ),
    "gain": Measure(
        "performance",
        "gain of pairs in percent",
        "how much better a column's task is when trained with a row's task than alone; below 0: worse",
        mutual=False,
        signed=True,
        alone=0.0,
    ),
}
FAMILIES: tuple[Family, ...] = ("data", "model", "training", "performance")


@dataclass(frozen=True)
class AffinityMatrix:
    """What one measure found for the tasks of one config, on average over its runs.

    Args:
        measure: key of `MEASURES`.
        tasks: K names.
        values: [K][K], from the row's task to the column's; NaN where nothing is known.
        spread: [K][K] standard deviations over the runs; NaN with one run.
        counts: [K][K] numbers of runs.
        label: what tells its config from others.
        stages: {part of the training: [K][K]}, where there are several.
        notes: sentences on how it was found.
    """

    measure: str
    tasks: tuple[str, ...]
    values: list[list[float]]
    spread: list[list[float]]
    counts: list[list[int]]
    label: str = ""
    stages: Mapping[str, list[list[float]]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def about(self) -> Measure:
        """The measure."""
        return MEASURES[self.measure]

    @property
    def title(self) -> str:
        """The name of the measure, and the config."""
        return f"{self.about.title} ({self.label})" if self.label else self.about.title

    def value(self, task: str, other: str) -> float:
        """Return what one task does to another; NaN if it is not known."""
        known = task in self.tasks and other in self.tasks
        return self.values[self.tasks.index(task)][self.tasks.index(other)] if known else nan

    def off_diagonal(self) -> list[float]:
        """Return the values of all pairs of different tasks."""
        return [value for a, row in enumerate(self.values) for b, value in enumerate(row) if a != b]

    def closeness(self) -> list[list[float]]:
        """Return the values such that higher ones mean more related tasks."""
        return [[-value for value in row] for row in self.values] if self.about.direction == "min" else self.values


def fold(
    measure: str,
    tasks: Sequence[str],
    runs: Sequence[Pairs],
    *,
    label: str = "",
    stages: Mapping[str, Sequence[Pairs]] | None = None,
    notes: Sequence[str] = (),
) -> AffinityMatrix:
    """Return the means over several runs of the pairs that each of them knows; values that are not finite are left out.

    Args:
        measure, label, notes: see `AffinityMatrix`.
        tasks: in the order of the matrix.
        runs: the values of each run; of a mutual measure one order of a pair is enough.
        stages: {part of the training: the values of each run}.
    """
    mutual = MEASURES[measure].mutual
    samples = _by_pair(tasks, runs, mutual=mutual)
    parts = {name: _by_pair(tasks, of_stage, mutual=mutual) for name, of_stage in (stages or {}).items()}
    return AffinityMatrix(
        measure,
        tuple(tasks),
        [[_mean(found) for found in row] for row in samples],
        [[stdev(found) if len(found) > 1 else nan for found in row] for row in samples],
        [[len(found) for found in row] for row in samples],
        label,
        {name: [[_mean(found) for found in row] for row in grid] for name, grid in parts.items()},
        list(notes),
    )


def _by_pair(tasks: Sequence[str], runs: Sequence[Pairs], *, mutual: bool) -> list[list[list[float]]]:
    """Return the finite values of each pair."""
    grid: list[list[list[float]]] = [[[] for _ in tasks] for _ in tasks]
    for row, task in enumerate(tasks):
        for column, other in enumerate(tasks):
            for pairs in runs:
                value = pairs.get((task, other), nan)
                if mutual and not isfinite(value):
                    value = pairs.get((other, task), nan)
                if isfinite(value):
                    grid[row][column].append(value)
    return grid


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else nan
