"""Ranking metrics of yes-or-no labels, of many resamples: scores are sorted once."""

import numpy

from mtlrun.tasks.resampling.base import ResampledMetrics, Values, divide, numbers


def rankings(scores: Values, target: Values, *, auroc: str, average_precision: str) -> ResampledMetrics:
    """Return the area under the ROC curve and the average precision, means over the labels in which they are defined.

    Args:
        scores: [n] or [n, num_labels].
        target: 0, 1, or a number < 0 for a missing label, of the same shape.
        auroc, average_precision: names of the metrics.
    """
    columns = zip(numbers(scores).reshape(len(scores), -1).T, numbers(target).reshape(len(target), -1).T, strict=True)
    labels = [_Ranked(of_label, labeled) for of_label, labeled in columns]

    def metrics(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        values = numpy.array([label(counts) for label in labels])  # [num_labels, 2, B]
        defined = ~numpy.isnan(values)
        mean = divide(numpy.where(defined, values, 0).sum(axis=0), defined.sum(axis=0).astype(numpy.float64))
        return {auroc: mean[0], average_precision: mean[1]}

    return metrics


class _Ranked:
    """The samples of one label, sorted by their scores.

    A resample with the counts c has, for each positive i, the negatives and positives with a lower score from their
    cumulative sums; equal scores are found beforehand.

    Args:
        scores: [n].
        labels: 0, 1, or < 0 for missing, [n].
    """

    def __init__(self, scores: numpy.ndarray, labels: numpy.ndarray) -> None:
        order = scores.argsort(kind="stable")
        self._positive, self._negative = order[labels[order] > 0], order[labels[order] == 0]
        positive, negative = scores[self._positive], scores[self._negative]
        self._negatives_below = negative.searchsorted(positive, side="left")
        self._negatives_up_to = negative.searchsorted(positive, side="right")
        self._positives_below = positive.searchsorted(positive, side="left")
        self._ties = bool((self._negatives_below != self._negatives_up_to).any())

    def __call__(self, counts: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return AUROC and average precision, both [B]."""
        positives = counts.take(self._positive, axis=1)
        cumulative, all_positives = _cumulative(positives)
        negatives, all_negatives = _cumulative(counts.take(self._negative, axis=1))
        below = negatives.take(self._negatives_below, axis=1)
        # A pair of equal scores counts 1/2.
        half = (below + negatives.take(self._negatives_up_to, axis=1)) / 2 if self._ties else below
        auroc = divide(numpy.einsum("bi,bi->b", positives, half), all_positives * all_negatives)
        true = all_positives[:, None] - cumulative.take(self._positives_below, axis=1)
        decided = numpy.maximum(true + all_negatives[:, None] - below, 1)  # 0 only for samples that do not occur
        return auroc, divide(numpy.einsum("bi,bi->b", positives, true / decided), all_positives)


def _cumulative(counts: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the cumulative sums from 0 on, [B, n + 1], and the total, [B]."""
    sums = numpy.zeros((len(counts), counts.shape[1] + 1))
    counts.cumsum(axis=1, out=sums[:, 1:])
    return sums, sums[:, -1]
