"""Curves over the steps of training, folded over the runs of a method."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, stdev

from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Row

#: Of a curve: more are not seen, and fewer have no shape.
MOST_POINTS, FEWEST_POINTS = 60, 12


@dataclass(frozen=True)
class Curve:
    """The mean over runs at each step, between mean minus and mean plus one standard deviation.

    Args:
        steps: at which at least one run has a value.
        mean: over the runs that have one.
        low, high: equal to the mean where there is one run.
        num_runs: the largest number of runs at a step.
    """

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    num_runs: int


class Curves:
    """The curves of the methods of a table; each file is read once."""

    def __init__(self) -> None:
        self._of_runs: dict[int, dict[str, dict[int, float]]] = {}

    def tags(self, row: Row) -> list[str]:
        """Return the tags of a method's curves, such as `train/left/loss`, `weight/left` or `val/left/accuracy`."""
        return list(dict.fromkeys(tag for run in row.group.runs for tag in self._of_run(run)))

    def values(self, row: Row, tag: str) -> list[dict[int, float]]:
        """Return {step: value} of each run of a method that has the tag."""
        found = [self._of_run(run).get(tag, {}) for run in row.group.runs]
        return [values for values in found if values]

    def curve(self, row: Row, tag: str, points: int = MOST_POINTS) -> Curve | None:
        """Return the curve of a method; None if no run has the tag."""
        return fold(self.values(row, tag), points)

    def _of_run(self, run: Run) -> dict[str, dict[int, float]]:
        if id(run) not in self._of_runs:
            found: dict[str, dict[int, float]] = {}
            for entry in run.curve():
                step = entry.get("step")
                if entry["split"] in ("train", "val", "test_selected") and isinstance(step, int):
                    for tag, value in entry.items():
                        if "/" in tag and isinstance(value, (int, float)) and isfinite(value):
                            found.setdefault(tag, {})[step] = value
            self._of_runs[id(run)] = found
        return self._of_runs[id(run)]


def fold(runs: Iterable[Mapping[int, float]], points: int = MOST_POINTS) -> Curve | None:
    """Return the curve over some runs; None without values.

    Args:
        runs: {step: value} of each.
        points: how many steps the curve has, about; between 12 and 60, whatever is said.
    """
    by_step: dict[int, list[float]] = {}
    for values in runs:
        for step, value in values.items():
            by_step.setdefault(step, []).append(value)
    if not by_step:
        return None
    steps = _thin(sorted(by_step), min(max(points, FEWEST_POINTS), MOST_POINTS))
    mean = [fmean(by_step[step]) for step in steps]
    spread = [stdev(by_step[step]) if len(by_step[step]) > 1 else 0.0 for step in steps]
    low = [center - reach for center, reach in zip(mean, spread, strict=True)]
    high = [center + reach for center, reach in zip(mean, spread, strict=True)]
    return Curve(steps, mean, low, high, max(map(len, by_step.values())))


def _thin(steps: list[int], points: int) -> list[int]:
    """Return equally spaced ones of many steps, with the first and the last."""
    if len(steps) <= points:
        return steps
    return [steps[round(index * (len(steps) - 1) / (points - 1))] for index in range(points)]
