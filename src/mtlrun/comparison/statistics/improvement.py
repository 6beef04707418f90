"""Probability of improvement and interquartile mean, with intervals by the bootstrap over runs.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), sections
4.2 and 4.3. There each task has runs of its own, which are drawn within the task. Here one run brings a value of each
task, and these go up and down together, so whole runs are drawn; `by_run=False` draws as the paper does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlrun.comparison.statistics.intervals import LEVEL, SEED, Interval

if TYPE_CHECKING:
    import numpy

RESAMPLES = 2000

#: A value per run and task, [num_runs][num_tasks], higher is better; NaN for a missing one.
Scores = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Args:
        value: of the data.
        interval: None with fewer than two runs.
    """

    value: float
    interval: Interval | None


def probability_of_improvement(first: Scores, second: Scores, *, by_run: bool = True) -> Estimate:
    """Return the probability that a run of the first method beats one of the second on a task drawn at random.

    It is the mean over the tasks of the fraction of all pairs of runs in which the first is better; a tie counts 1/2.
    A task without a value of either method is left out.
    """
    import numpy

    def estimate(one: "numpy.ndarray", other: "numpy.ndarray") -> "numpy.ndarray":
        # [..., num_runs, num_tasks] -> [...]
        left, right = one[..., :, None, :], other[..., None, :, :]
        wins = numpy.where(numpy.isnan(left) | numpy.isnan(right), numpy.nan, (left > right) + 0.5 * (left == right))
        return _mean(_mean(wins.reshape(*wins.shape[:-3], -1, wins.shape[-1]), axis=-2), axis=-1)

    return _estimate(estimate, [first, second], by_run)


def interquartile_mean(scores: Scores, *, by_run: bool = True) -> Estimate:
    """Return the mean of the middle half of the values of all runs and tasks.

    It is less affected by outliers than the mean, and more precise than the median.
    """
    return _estimate(_middle, [scores], by_run)


def _middle(values: "numpy.ndarray") -> "numpy.ndarray":
    """Return the interquartile mean, [..., num_runs, num_tasks] -> [...]; a quarter of n is rounded down."""
    import numpy

    flat = numpy.sort(values.reshape(*values.shape[:-2], -1), axis=-1)  # NaN last
    count = (~numpy.isnan(flat)).sum(axis=-1, keepdims=True)
    cut = count // 4
    places = numpy.arange(flat.shape[-1])
    return _mean(numpy.where((places >= cut) & (places < count - cut), flat, numpy.nan), axis=-1)


def _mean(values: "numpy.ndarray", axis: int) -> "numpy.ndarray":
    """Return the mean of what is not NaN, NaN for nothing."""
    import numpy

    there = ~numpy.isnan(values)
    count = there.sum(axis=axis)
    total = numpy.where(there, values, 0).sum(axis=axis)
    mean: numpy.ndarray = numpy.where(count > 0, total / numpy.maximum(count, 1), numpy.nan)
    return mean


def _estimate(statistic: "Callable[..., numpy.ndarray]", samples: Sequence[Scores], by_run: bool) -> Estimate:
    """Return a statistic of methods and its percentile interval, for which the runs of each are drawn anew."""
    import numpy

    if not all(map(len, samples)):  # no run of a method has a value
        return Estimate(numpy.nan, None)
    arrays = [numpy.array(scores, dtype=float).reshape(len(scores), -1) for scores in samples]
    if any(array.size == 0 for array in arrays):
        return Estimate(numpy.nan, None)
    value = float(statistic(*arrays))
    if min(map(len, arrays)) < 2:
        return Estimate(value, None)
    generator = numpy.random.default_rng(SEED)
    found = []
    at_once = max(1, 2_000_000 // numpy.prod([len(array) for array in arrays]).item() // arrays[0].shape[1])
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        found.append(statistic(*(_draw(array, count, generator, by_run) for array in arrays)))
    values = numpy.concatenate(found)
    values = values[numpy.isfinite(values)]
    if not len(values):
        return Estimate(value, None)
    low, high = numpy.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, Interval(float(low), float(high)))


def _draw(array: "numpy.ndarray", count: int, generator: "numpy.random.Generator", by_run: bool) -> "numpy.ndarray":
    """Return resamples of the runs, [num_runs, num_tasks] -> [count, num_runs, num_tasks]."""
    import numpy

    num_runs, num_tasks = array.shape
    drawn = generator.integers(0, num_runs, (count, num_runs, 1 if by_run else num_tasks))
    return array[drawn, numpy.arange(num_tasks)]
