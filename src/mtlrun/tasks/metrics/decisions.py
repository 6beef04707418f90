"""Metrics of decisions for a class, from one count per class; and F1 of several labels, computed by torchmetrics.

Of one label, yes is class 1 and is decided for where the logit is above 0, the probability above 1/2.
"""

import torch
from torch import Tensor
from torchmetrics.classification import MultilabelF1Score

from mtlrun.tasks.counting import count_numbers
from mtlrun.tasks.metrics.shared import SharedState


class _Decisions(SharedState):
    """Base of metrics of one of several classes: for each class how often it is true, decided for, and both.

    Args:
        num_classes: 2 or more.
    """

    #: Labels, decisions and right decisions of each class, int64 [3, num_classes].
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64))

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: logits [batch, num_classes], of which the highest decides; or logits of yes [batch].
            target: classes, int64 [batch].
        """
        decided = prediction.argmax(dim=1) if prediction.dim() == 2 else (prediction > 0).long()
        size = self.num_classes
        right = count_numbers(torch.where(decided == target, target, size), size + 1)[:-1]
        self.counts += torch.stack([count_numbers(target, size), count_numbers(decided, size), right])

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each class the labels, the decisions and the right decisions, float64 [num_classes]."""
        true, decided, right = self.counts.double()
        return true, decided, right


class Accuracy(_Decisions):
    """Fraction of right decisions."""

    def compute(self) -> Tensor:
        true, _, right = self._counts()
        return right.sum() / true.sum()


class F1(_Decisions):
    """F1 of yes on one label; NaN if no target is 1, since it would be 0 for perfect predictions too."""

    def compute(self) -> Tensor:
        true, decided, right = (counts[1] for counts in self._counts())
        return torch.where(true > 0, 2 * right / (true + decided), torch.nan)


class MacroF1(_Decisions):
    """Mean of the F1 of each class that is in the targets or is decided for."""

    def compute(self) -> Tensor:
        true, decided, right = self._counts()
        return (2 * right / (true + decided)).nanmean()  # 0 / 0 for a class that is neither


class BalancedAccuracy(_Decisions):
    """Mean over the classes of the fraction of their samples that is decided right; a class without any is left out."""

    def compute(self) -> Tensor:
        true, _, right = self._counts()
        return (right / true).nanmean()


class Matthews(_Decisions):
    """Matthews correlation coefficient, of any number of classes; NaN if all targets are of one class.

    0 if all decisions are for one class. Source: Gorodkin, "Comparing two K-category assignments by a K-category
    correlation coefficient" (2004), equation 8.
    """

    def compute(self) -> Tensor:
        true, decided, right = self._counts()
        samples = true.sum()
        covariance = samples * right.sum() - true @ decided
        of_targets, of_decisions = samples.square() - true @ true, samples.square() - decided @ decided
        correlation = covariance / (of_targets * of_decisions).sqrt()
        return torch.where(of_targets > 0, torch.where(of_decisions > 0, correlation, 0.0), torch.nan)


class MacroLabelF1(MultilabelF1Score):
    """Mean over several labels of the F1 of yes; NaN if no label is ever 1."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of logits and targets [batch, num_labels].

        Decisions are passed on: torchmetrics takes logits for probabilities where all lie in [0, 1].
        """
        super().update((prediction > 0).long(), target)

    def compute(self) -> Tensor:
        positives = (torch.as_tensor(self.tp) + torch.as_tensor(self.fn)).sum()
        return torch.where(positives > 0, super().compute(), torch.nan)
