"""Metrics of decisions between classes, of many resamples: from the numbers of labels, decisions and hits per class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy

from mtlrun.tasks.resampling.base import GroupSums, ResampledMetrics, Values, divide, numbers


@dataclass(frozen=True)
class Decided:
    """How often each class was right, decided and both, in each resample; all [B, num_classes]."""

    labels: numpy.ndarray
    decisions: numpy.ndarray
    hits: numpy.ndarray

    @property
    def total(self) -> numpy.ndarray:
        """The number of samples, [B]."""
        total: numpy.ndarray = self.labels.sum(axis=1)
        return total


def decisions(
    decided: Values,
    target: Values,
    num_classes: int,
    metrics: Mapping[str, Callable[[Decided], numpy.ndarray]],
) -> ResampledMetrics:
    """Return metrics of decisions.

    Args:
        decided: class indices [n].
        target: class indices [n].
        num_classes: number of classes.
        metrics: {name: function of `Decided` that gives values [B]}.
    """
    # Samples with the same label and the same decision are counted together first: there are few of these pairs.
    pairs, pair_of = numpy.unique(
        numbers(target).astype(int) * num_classes + numbers(decided).astype(int), return_inverse=True
    )
    right = pairs // num_classes == pairs % num_classes
    of_pair = GroupSums(pair_of.reshape(-1), len(pairs))
    by_label, by_decision = (GroupSums(group, num_classes) for group in (pairs // num_classes, pairs % num_classes))

    def values(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        sums = of_pair(counts)
        found = Decided(by_label(sums), by_decision(sums), by_label(sums * right))
        return {name: metric(found) for name, metric in metrics.items()}

    return values


def accuracy(found: Decided) -> numpy.ndarray:
    """Return the fraction of right decisions."""
    return divide(found.hits.sum(axis=1), found.total)


def macro_f1(found: Decided) -> numpy.ndarray:
    """Return the mean of the F1 of the classes that occur as a label or a decision."""
    both = found.labels + found.decisions
    scores = 2 * found.hits / numpy.maximum(both, 1)
    return divide(scores.sum(axis=1), (both > 0).sum(axis=1).astype(numpy.float64))


def balanced_accuracy(found: Decided) -> numpy.ndarray:
    """Return the mean over the classes with a label of the fraction of these that is decided right."""
    right = found.hits / numpy.maximum(found.labels, 1)
    return divide(right.sum(axis=1), (found.labels > 0).sum(axis=1).astype(numpy.float64))


def matthews(found: Decided) -> numpy.ndarray:
    """Return Matthews' correlation coefficient; 0 if all decisions are for one class, NaN if all labels are of one."""
    total = found.total
    covariance = total * found.hits.sum(axis=1) - (found.labels * found.decisions).sum(axis=1)
    of_labels, of_decisions = (total**2 - (each**2).sum(axis=1) for each in (found.labels, found.decisions))
    correlation = numpy.nan_to_num(divide(covariance, numpy.sqrt(of_labels * of_decisions)), nan=0.0)
    return numpy.where(of_labels > 0, correlation, numpy.nan)


def f1_of_yes(found: Decided) -> numpy.ndarray:
    """Return the F1 of class 1; NaN without such a label."""
    scores = 2 * found.hits[:, 1] / numpy.maximum(found.labels[:, 1] + found.decisions[:, 1], 1)
    return numpy.where(found.labels[:, 1] > 0, scores, numpy.nan)


def quadratic_kappa(decided: Values, target: Values, num_levels: int) -> ResampledMetrics:
    """Return Cohen's kappa with quadratic weights; NaN if all labels are of one level.

    Args:
        decided: levels [n].
        target: levels [n].
        num_levels: number of levels.
    """
    squares = numpy.square(numbers(decided) - numbers(target))
    levels = numpy.arange(num_levels)

    def expected(found: Decided) -> numpy.ndarray:
        # The mean of (i - j)^2 over all pairs of a label and a decision, from the moments of both.
        total = found.total
        label, label_square = found.labels @ levels / total, found.labels @ levels**2 / total
        decision, decision_square = found.decisions @ levels / total, found.decisions @ levels**2 / total
        mean: numpy.ndarray = label_square - 2 * label * decision + decision_square
        return numpy.where((found.labels > 0).sum(axis=1) > 1, mean, numpy.nan)

    of_chance = decisions(decided, target, num_levels, {"expected": expected})

    def metric(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        return {"kappa": 1 - divide(counts @ squares / counts.sum(axis=1), of_chance(counts)["expected"])}

    return metric


def macro_f1_of_labels(decided: Values, target: Values) -> ResampledMetrics:
    """Return the mean over several labels of the F1 of yes, 0 for one that is never yes; NaN if none is ever yes.

    Args:
        decided: 0 or 1, [n, num_labels].
        target: 0, 1, or < 0 for a missing label, [n, num_labels].
    """
    labels = numbers(target)
    labeled, yes, decision = (mask.astype(float) for mask in (labels >= 0, labels == 1, numbers(decided) == 1))
    decision *= labeled
    hits = yes * decision

    def metric(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        both = counts @ (yes + decision)
        mean = (2 * (counts @ hits) / numpy.maximum(both, 1)).mean(axis=1)
        return {"f1": numpy.where((counts @ yes).sum(axis=1) > 0, mean, numpy.nan)}

    return metric
