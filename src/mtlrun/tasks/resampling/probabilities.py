"""Metrics of the predicted probabilities of classes, of many resamples."""

from typing import TYPE_CHECKING

import numpy

from mtlrun.tasks.resampling.base import ResampledMetrics, numbers

if TYPE_CHECKING:
    from torch import Tensor

#: Bins of equal width of the expected calibration error.
BINS = 15


def probabilities(logits: "Tensor", target: "Tensor") -> ResampledMetrics:
    """Return `log_loss` and the expected calibration error, `ece`, as `tasks.metrics.probabilities` defines them.

    Args:
        logits: [n, num_classes], or of yes [n].
        target: classes, int64 [n].
    """
    from torch import nn

    logits = logits.double()
    if logits.dim() == 2:
        logarithms = logits.log_softmax(dim=1)
        losses = nn.functional.nll_loss(logarithms, target, reduction="none")
        highest, decided = logarithms.max(dim=1)
        return calibration(numbers(losses), numbers(highest.exp()), numbers(decided == target))
    losses = nn.functional.binary_cross_entropy_with_logits(logits, target.double(), reduction="none")
    return calibration(numbers(losses), numbers(logits.sigmoid()), numbers(target > 0))


def calibration(losses: numpy.ndarray, probability: numpy.ndarray, outcome: numpy.ndarray) -> ResampledMetrics:
    """Return `log_loss` and `ece`.

    Args:
        losses: minus the logarithm of the probability of each label, [n].
        probability: of what is decided for, or of yes, [n].
        outcome: 1 where that is right, or the label yes, else 0, [n].
    """
    bins = numpy.clip(numpy.ceil(numpy.nan_to_num(probability) * BINS), 1, BINS) - 1
    residuals = (bins[:, None] == numpy.arange(BINS)) * (outcome - probability)[:, None]
    columns = numpy.concatenate([residuals, losses[:, None]], axis=1)

    def metrics(counts: numpy.ndarray) -> dict[str, numpy.ndarray]:
        means = counts @ columns / counts.sum(axis=1, keepdims=True)
        return {"log_loss": means[:, -1], "ece": numpy.abs(means[:, :-1]).sum(axis=1)}

    return metrics
