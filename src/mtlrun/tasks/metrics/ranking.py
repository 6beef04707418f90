"""Ranking metrics of binary labels, pooled over the split and averaged over the labels."""

import math

import torch
from torch import Tensor

from mtlrun.tasks.metrics.shared import SharedState


class _Ranking(SharedState):
    """Mean over the labels of a metric of all scores and targets; subclasses define the metric of one label.

    Scores are compared as they are, so that two are a tie only if they are the same number; sigmoids of large logits
    would be the same, and torchmetrics takes logits for probabilities where all of them lie in [0, 1].

    A label whose metric is not defined on the split is left out of the mean; NaN if there is no other, or if a score is
    NaN, which has no rank.
    """

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: scores [batch] or [batch, num_labels], such as logits; the higher, the more likely the label 1.
            target: 0 or 1, or a number < 0 for a missing label; of the same shape.
        """
        self.scores.append(prediction.reshape(len(prediction), -1))
        self.labels.append(target.reshape(len(target), -1).to(torch.int8))

    def compute(self) -> Tensor:
        # On the CPU: cumulative sums are not deterministic on GPUs.
        all_scores, all_labels = torch.cat(self.scores).cpu(), torch.cat(self.labels).cpu()
        if all_scores.isnan().any():
            return torch.tensor(torch.nan)
        columns = zip(all_scores.T, all_labels.T, strict=True)
        values = [self._label_metric(*_counts(scores[labels >= 0], labels[labels >= 0])) for scores, labels in columns]
        return torch.tensor(values, dtype=torch.float64).nanmean()

    def _label_metric(self, positives: Tensor, negatives: Tensor) -> float:
        """Return the metric of one label, NaN if it is not defined.

        Args:
            positives, negatives: how many targets of each kind have the same score, from the lowest score to the
                highest; float64 [number of different scores].
        """
        raise NotImplementedError


class AUROC(_Ranking):
    """Area under the ROC curve; not defined for labels that are always 0 or always 1.

    This is the fraction of pairs of a positive and a negative that are ranked right; a tie counts 1/2.
    """

    def _label_metric(self, positives: Tensor, negatives: Tensor) -> float:
        pairs = positives.sum() * negatives.sum()
        below = negatives.cumsum(0) - negatives / 2
        return float(positives @ below / pairs) if pairs else math.nan


class AveragePrecision(_Ranking):
    """Area under the curve of precision over recall, as a sum of steps; not defined for labels that are never 1."""

    def _label_metric(self, positives: Tensor, negatives: Tensor) -> float:
        true, all_positives = positives.flip(0).cumsum(0), positives.sum()
        precision = true / (true + negatives.flip(0).cumsum(0))
        return float(positives.flip(0) @ precision / all_positives) if all_positives else math.nan


def _counts(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many labels 1 and how many 0 each different score has, from the lowest score to the highest."""
    distinct, index = scores.unique(return_inverse=True)
    positives, negatives = (
        torch.bincount(index[labels == label], minlength=len(distinct)).double() for label in (1, 0)
    )
    return positives, negatives
