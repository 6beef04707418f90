"""Differences between two methods over test samples, from the kept predictions of their runs, paired by sample.

How much a difference would vary over other test samples of the same kind is another question than how much it varies
over seeds: with a small test split all seeds may agree on what is an accident of its samples. So a difference should
be outside the noise of both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isclose
from typing import TYPE_CHECKING

from mtlrun.comparison.predictions import TaskPredictions, UnusableError, read_predictions
from mtlrun.comparison.statistics.intervals import LEVEL, Interval
from mtlrun.comparison.statistics.paired import Direction, Key, pairs_of

if TYPE_CHECKING:
    import numpy

    from mtlrun.comparison.run import Run

_MOST, _FEWEST, _DRAWS = 2000, 500, 2 * 10**7  # resamples, and samples drawn in all of them
_AT_ONCE = 200_000  # counts that are held at a time
_CLOSE = 1e-4  # of a metric computed from the file to that of the record


@dataclass(frozen=True)
class SampleDifference:
    """By how much one method is better than another, with its spread over test samples.

    Args:
        gain: mean difference over the repetitions, positive where the first method is better.
        interval: percentile interval over resamples of the test samples.
        p: of the two-sided test that there is no difference, from the resamples on the other side of 0.
        num_samples: number of test samples with a label; of several test splits, the smallest number.
        num_repetitions: number of repetitions over which each resample is averaged.
    """

    gain: float
    interval: Interval
    p: float
    num_samples: int
    num_repetitions: int


@dataclass(frozen=True)
class _Resampled:
    """A metric of a run on resamples of its test samples.

    Args:
        key: of the samples.
        num_samples: number of them.
        value: on the test split.
        values: on the resamples; runs with the same key have the same resamples, [num_resamples].
    """

    key: str
    num_samples: int
    value: float
    values: "numpy.ndarray"


class SampleComparison:
    """Comparisons of runs over test samples; files are read once, and each metric is resampled once.

    Source: the paired bootstrap of Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3 and
    chapter 16. Each resample draws as many samples as there are, with replacement, the same for all runs, and
    computes the metric of each run on them; the difference is averaged over the repetitions.
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[str, TaskPredictions] | str] = {}
        self._resampled: dict[tuple[str, str, str], _Resampled | str] = {}

    def compare(
        self,
        first: "Mapping[Key, Run]",
        second: "Mapping[Key, Run]",
        task: str,
        metric: str,
        direction: Direction,
    ) -> SampleDifference | str:
        """Return by how much the first method is better; or why that is not known over test samples.

        Runs are paired on shared repetitions, as those of `statistics.paired`; all of either method count where there
        are fewer than two of these.

        Args:
            first, second: {repetition: run} of the completed runs.
            task: its name.
            metric: of the task.
            direction: of the metric.
        """
        import numpy

        shared = pairs_of(first, second)
        pairs = [[first[each], second[each]] for each in shared] or [[*first.values(), *second.values()]]
        found: dict[str, _Resampled] = {}
        for run in (run for pair in pairs for run in pair):
            resampled = self._resample(run, task, metric)
            if isinstance(resampled, str):
                return resampled
            found[str(run.folder)] = resampled
        if any(len({found[str(run.folder)].key for run in pair}) != 1 for pair in pairs):
            return "the methods were not tested on the same samples with the same labels"
        sign = 1 if direction == "max" else -1
        one, other = ([found[str(runs[each].folder)] for each in (shared or runs)] for runs in (first, second))
        gain = sign * (numpy.mean([each.value for each in one]) - numpy.mean([each.value for each in other]))
        length = min(len(each.values) for each in found.values())
        means = [numpy.mean([each.values[:length] for each in method], axis=0) for method in (one, other)]
        gains = sign * (means[0] - means[1])
        gains = gains[numpy.isfinite(gains)]
        if len(gains) < length / 2:
            return f"{metric} is not defined on most resamples of the test samples"
        low, high = numpy.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        beyond = min((gains <= 0).sum(), (gains >= 0).sum())
        p = min(1.0, 2 * (1 + float(beyond)) / (1 + len(gains)))
        num_samples = min(each.num_samples for each in found.values())
        return SampleDifference(float(gain), Interval(float(low), float(high)), p, num_samples, len(one))

    def _resample(self, run: "Run", task: str, metric: str) -> _Resampled | str:
        key = str(run.folder), task, metric
        if key not in self._resampled:
            self._resampled[key] = self._compute(run, task, metric)
        return self._resampled[key]

    def _compute(self, run: "Run", task: str, metric: str) -> _Resampled | str:
        """Return the metric of one run on resamples, or why there is none."""
        import numpy

        record = run.record
        if record.protocol == "legacy":
            return "results of the legacy protocol are means over several evaluations, of which one is in the file"
        if record.bootstrap.get("groups"):
            return "test samples belong to groups, which are not independent and not in the file of predictions"
        file = self._read(run)
        if isinstance(file, str):
            return file
        predictions = file.get(task)
        if predictions is None or metric not in predictions.formulas or metric not in record.test.get(task, {}):
            return f"{metric} cannot be computed from the file of predictions"
        formula, count = predictions.formulas[metric], predictions.num_samples
        value, recorded = float(formula(numpy.ones((1, count)))[metric][0]), record.test[task][metric]
        # A kind of the user's own may mean another thing by the same name.
        if not isclose(value, recorded, rel_tol=_CLOSE, abs_tol=_CLOSE / 100):
            return f"{metric} computed from the file of predictions is {value:.4g}, and {recorded:.4g} in the record"
        values = [formula(counts)[metric] for counts in _in_parts(_draw(count, predictions.samples))]
        return _Resampled(predictions.key, count, value, numpy.concatenate(values))

    def _read(self, run: "Run") -> dict[str, TaskPredictions] | str:
        folder = run.folder
        if folder is None:
            return "a run has no folder with predictions"
        if str(folder) not in self._files:
            try:
                self._files[str(folder)] = read_predictions(folder)
            except UnusableError as error:
                self._files[str(folder)] = str(error)
        return self._files[str(folder)]


@lru_cache(maxsize=2)
def _draw(count: int, samples: str) -> "numpy.ndarray":
    """Return how often each of so many samples is drawn in each resample, [num_resamples, count]."""
    import numpy

    generator = numpy.random.default_rng(int(samples[:16], 16))
    resamples = max(_FEWEST, min(_MOST, _DRAWS // count))
    drawn = numpy.empty((resamples, count), numpy.uint16)
    for counts in drawn:
        counts[:] = numpy.bincount(generator.integers(0, count, count), minlength=count)
    return drawn


def _in_parts(drawn: "numpy.ndarray") -> "Iterator[numpy.ndarray]":
    """Yield some resamples at a time, as floating-point numbers."""
    step = max(1, _AT_ONCE // drawn.shape[1])
    for start in range(0, len(drawn), step):
        yield drawn[start : start + step].astype(float)
