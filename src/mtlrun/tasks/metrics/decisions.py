"""Metrics of binary decisions, computed by torchmetrics: yes where the logit is above 0, the probability above 1/2."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score, MultilabelF1Score


class _Decided(Metric):
    """Mixin that passes decisions on: torchmetrics takes logits for probabilities where all lie in [0, 1]."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of logits [batch] or [batch, num_labels], and targets of the same shape."""
        super().update((prediction > 0).long(), target)  # type: ignore[safe-super]


class Accuracy(_Decided, BinaryAccuracy):
    """Fraction of right decisions on one label."""


class F1(_Decided, BinaryF1Score):
    """F1 of yes on one label; NaN if no target is 1, since it would be 0 for perfect predictions too."""

    def compute(self) -> Tensor:
        return torch.where(_positives(self) > 0, super().compute(), torch.nan)


class MacroF1(_Decided, MultilabelF1Score):
    """Mean over several labels of the F1 of yes; NaN if no label is ever 1."""

    def compute(self) -> Tensor:
        return torch.where(_positives(self) > 0, super().compute(), torch.nan)


def _positives(metric: BinaryF1Score | MultilabelF1Score) -> Tensor:
    """Return the number of targets that are 1, of all labels."""
    return (torch.as_tensor(metric.tp) + torch.as_tensor(metric.fn)).sum()
