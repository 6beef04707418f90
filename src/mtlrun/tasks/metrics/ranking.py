"""Ranking metrics of binary labels, pooled over the split and averaged over the labels."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision


class _Ranking(Metric):
    """Mean over the labels of a metric of all scores and targets; subclasses define the metric of one label.

    All subclasses have the same state and update, so that torchmetrics keeps one for all of them.

    A label whose metric is not defined on the split is left out of the mean; NaN if there is no other.
    """

    higher_is_better = True
    full_state_update = False
    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: probabilities [batch] or [batch, num_labels].
            target: 0 or 1, or a number < 0 for a missing label; of the same shape.
        """
        self.scores.append(prediction.reshape(len(prediction), -1))
        self.labels.append(target.reshape(len(target), -1).to(torch.int8))

    def compute(self) -> Tensor:
        # On the CPU: cumulative sums are not deterministic on GPUs.
        columns = zip(torch.cat(self.scores).cpu().T, torch.cat(self.labels).cpu().T, strict=True)
        values = [self._label_metric(scores[labels >= 0], labels[labels >= 0].long()) for scores, labels in columns]
        return torch.tensor(values).nanmean()

    def _label_metric(self, scores: Tensor, labels: Tensor) -> float:
        """Return the metric of one column of labels, NaN if it is not defined."""
        raise NotImplementedError


class AUROC(_Ranking):
    """Area under the ROC curve; not defined for labels that are always 0 or always 1."""

    def _label_metric(self, scores: Tensor, labels: Tensor) -> float:
        if len(labels.unique()) < 2:
            return math.nan
        return float(binary_auroc(scores, labels, validate_args=False))


class AveragePrecision(_Ranking):
    """Area under the curve of precision over recall, as a sum of steps; not defined for labels that are never 1."""

    def _label_metric(self, scores: Tensor, labels: Tensor) -> float:
        if not labels.any():
            return math.nan
        return float(binary_average_precision(scores, labels, validate_args=False))
