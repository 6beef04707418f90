"""Intervals of metrics by the bootstrap: how much a metric would vary over other samples of the same kind."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy
import torch
from torch import Tensor

from mtlrun.tasks import Task
from mtlrun.tasks.losses.sample_weights import sample_losses
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.means import mean_loss
from mtlrun.training.outputs import SplitOutputs

logger = logging.getLogger(__name__)

#: The fraction of the resamples whose values lie in an interval.
LEVEL = 0.95
SEED = 0
_MOST, _FEWEST, _DRAWS = 1000, 200, 10**7  # resamples, and samples drawn in all of them
_SLOW_RESAMPLES, _SLOW_SAMPLES = 200, 2000  # of metrics that a meter computes
_AT_ONCE = 50_000  # counts that are held at a time, so that they stay in the processor's cache
_PROPORTION = "accuracy"  # which has an interval of Wilson where all are right, or none
_ROUNDING = 1e-14  # by which sums of equal values may differ
_CLOSE = 1e-4  # of a metric by its formula to the same by a meter, which may compute in float32

Metrics = Mapping[str, Mapping[str, float]]


@dataclass
class Intervals:
    """The intervals of a split.

    Args:
        bounds: {task: {metric: [low, high]}}; a metric without an interval has no entry.
        resamples: how many were drawn.
        units: {task: number of labeled samples, or of groups of them, that were drawn from}.
        undefined: {task: {metric: fraction of the resamples that it is not defined on}}, where it is not 0.
        by_wilson: {task: [metric]}, those whose bounds are not from the resamples.
    """

    bounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    resamples: int = 0
    units: dict[str, int] = field(default_factory=dict)
    undefined: dict[str, dict[str, float]] = field(default_factory=dict)
    by_wilson: dict[str, list[str]] = field(default_factory=dict)


def num_resamples(num_samples: int) -> int:
    """Return how many resamples are drawn: 1000 for up to 10,000 samples, then fewer, down to 200."""
    return max(_FEWEST, min(_MOST, _DRAWS // max(num_samples, 1)))


def find_intervals(
    outputs: SplitOutputs, metrics: Metrics, device: torch.device, groups: Tensor | None = None
) -> Intervals:
    """Return percentile intervals of the metrics of a split.

    Each resample has as many labeled samples as the split, drawn from these with replacement; with groups, as many
    groups, each with all of its samples. The seed is fixed. A metric has no interval if it is not defined on the split,
    or if nearly all resamples give the same value, which says nothing about other samples. An accuracy of 0 or 1 has
    Wilson's score interval instead, of as many trials as samples, or groups.

    Sources: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3; Wilson, "Probable inference,
    the law of succession, and statistical inference" (JASA 1927).

    Args:
        outputs: of the heads.
        metrics: {task: {metric: value}} on the split.
        device: where the tasks are.
        groups: the group of each sample of the split by number, int64 [num_samples]; None if samples are independent.
    """
    found = Intervals(resamples=num_resamples(outputs.num_samples))
    # Tasks with equally many samples have the same resamples, which are drawn once.
    same_draws: dict[bytes, list[_TaskMetrics]] = {}
    for name, task in outputs.tasks.items():
        of_task = outputs.of_task(name)
        if of_task is None or len(of_task.targets) == 0:
            continue
        units = numpy.arange(len(of_task.targets))
        if groups is not None:
            units = numpy.unique(groups[of_task.indices[of_task.labeled]].numpy(), return_inverse=True)[1].reshape(-1)
        found.units[name] = int(units.max()) + 1
        if found.units[name] < 2:
            continue
        predictions, targets = of_task.labeled_predictions.to(device), of_task.targets.to(device)
        try:
            resampled = _TaskMetrics(name, task, predictions, targets, metrics[name], units)
        except Exception as error:  # of a kind of the user's own: its result is worth more than its intervals
            logger.warning("task %s: no intervals, since its metrics cannot be resampled: %s", name, error)
            continue
        same_draws.setdefault(units.tobytes(), []).append(resampled)
    for tasks in same_draws.values():
        for drawn in _draw(found.units[tasks[0].name], found.resamples):
            counts = drawn if groups is None else drawn.take(tasks[0].units, axis=1)
            for task_metrics in tasks:
                task_metrics.add(counts)
        for task_metrics in tasks:
            task_metrics.summarize(found)
    return found


def wilson_interval(proportion: float, trials: int) -> list[float]:
    """Return the bounds of Wilson's score interval of a proportion, of the level `LEVEL`.

    Args:
        proportion: of successes, from 0 to 1.
        trials: > 0.
    """
    quantile = NormalDist().inv_cdf((1 + LEVEL) / 2)
    spread = quantile**2 / trials
    center = (proportion + spread / 2) / (1 + spread)
    reach = quantile * math.sqrt(proportion * (1 - proportion) / trials + spread / (4 * trials)) / (1 + spread)
    return [max(0.0, center - reach), min(1.0, center + reach)]


def _draw(units: int, resamples: int) -> Iterator[numpy.ndarray]:
    """Yield how often each of so many units is drawn in each resample, float64 [some resamples, units]."""
    generator = numpy.random.Generator(numpy.random.PCG64(SEED))
    dtype = numpy.uint16 if units < 2**16 else numpy.uint32
    at_once = max(1, _AT_ONCE // units)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = generator.integers(0, units, (count, units), dtype=dtype)
        places = drawn + numpy.arange(0, count * units, units)[:, None]
        yield numpy.bincount(places.ravel(), minlength=count * units).reshape(count, units).astype(numpy.float64)


class _TaskMetrics:
    """The metrics of one task on resamples.

    Args:
        name, task: of the task.
        predictions, targets: of the labeled samples.
        metrics: {metric: value} on the split.
        units: the number of the unit that each labeled sample is drawn with, [n].
    """

    def __init__(
        self,
        name: str,
        task: Task,
        predictions: Tensor,
        targets: Tensor,
        metrics: Mapping[str, float],
        units: numpy.ndarray,
    ) -> None:
        self.name, self.units = name, units
        self._task, self._predictions, self._targets = task, predictions, targets
        self._values: dict[str, list[numpy.ndarray]] = {
            metric: [] for metric, value in metrics.items() if math.isfinite(value)
        }
        self._formulas = self._make_formulas()
        # A kind may have redefined a metric whose formula it inherits, so each has to prove itself on the split.
        on_split = self._formulas(numpy.ones((1, len(targets))))
        self._by_formula = {
            metric
            for metric in self._values
            if metric in on_split
            and math.isclose(on_split[metric][0], metrics[metric], rel_tol=_CLOSE, abs_tol=_CLOSE / 100)
        }

    def _make_formulas(self) -> ResampledMetrics:
        formulas = self._task.resampled_metrics(self._predictions, self._targets)
        losses, terms = sample_losses(self._task, self._predictions, self._targets)
        of_loss = mean_loss(losses.double() * terms, terms)
        return of_loss if formulas is None else join(of_loss, formulas)

    def add(self, counts: numpy.ndarray) -> None:
        """Compute the metrics of some resamples, [B, n]."""
        found = self._formulas(counts)
        for metric in self._by_formula:
            self._values[metric].append(found[metric])
        others = self._values.keys() - self._by_formula
        if others and len(self._targets) <= _SLOW_SAMPLES:
            so_far = sum(len(values) for values in self._values[min(others)])
            for of_sample in counts[: max(_SLOW_RESAMPLES - so_far, 0)]:
                measured = self._measure(of_sample)
                for metric in others:
                    self._values[metric].append(numpy.array([measured[metric]]))

    def _measure(self, counts: numpy.ndarray) -> dict[str, float]:
        """Return the metrics of one resample by a meter, [n]."""
        chosen = torch.from_numpy(numpy.arange(len(counts)).repeat(counts.astype(numpy.int64)))
        chosen = chosen.to(self._targets.device)
        meter = self._task.meter().to(self._targets.device)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of metrics that are not defined on a resample
            meter.update(self._predictions[chosen], self._targets[chosen])
            return meter.compute()

    def summarize(self, found: Intervals) -> None:
        """Enter the intervals."""
        tail = (1 - LEVEL) / 2
        for metric, parts in self._values.items():
            values = numpy.concatenate(parts) if parts else numpy.empty(0)
            defined = values[numpy.isfinite(values)]
            if len(defined) < len(values):
                found.undefined.setdefault(self.name, {})[metric] = 1 - len(defined) / len(values)
            low, high = numpy.quantile(defined, [tail, 1 - tail]) if len(defined) else (0.0, 0.0)
            if not math.isclose(low, high, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
                found.bounds.setdefault(self.name, {})[metric] = [float(low), float(high)]
            elif metric == _PROPORTION and len(defined) and low in (0.0, 1.0):
                found.bounds.setdefault(self.name, {})[metric] = wilson_interval(low, found.units[self.name])
                found.by_wilson.setdefault(self.name, []).append(metric)
