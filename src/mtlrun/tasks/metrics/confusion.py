"""Metrics of decisions between classes or levels, all from one confusion matrix."""

import torch
from torch import Tensor

from mtlrun.tasks.counting import count_numbers
from mtlrun.tasks.metrics.shared import SharedState


class _Confusion(SharedState):
    """Base of metrics of the confusion matrix. To count a batch of maps takes the memory of a few of them.

    (torchmetrics takes that of num_classes^2 of them where only deterministic algorithms are allowed.)

    Args:
        num_classes: 2 or more.
        ignore_index: target value of what has no label; None if all have one.
    """

    #: How often each class (row) is decided to be each class (column), int64 [num_classes, num_classes].
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of decisions and targets: classes, int64, of the same shape."""
        cells = target * self.num_classes + prediction
        if self.ignore_index is not None:
            cells = torch.where(target == self.ignore_index, self.num_classes**2, cells)
        self.matrix += count_numbers(cells, self.num_classes**2 + 1)[:-1].view_as(self.matrix)

    def _distances(self) -> Tensor:
        """Return by how much the decision of each cell differs from its target, float64."""
        classes = torch.arange(self.num_classes, dtype=torch.float64, device=self.matrix.device)
        return (classes - classes[:, None]).abs()


class FractionRight(_Confusion):
    """Fraction of right decisions."""

    def compute(self) -> Tensor:
        return self.matrix.diagonal().sum().double() / self.matrix.sum()


class MeanIoU(_Confusion):
    """Mean over the classes of the intersection over the union of where a class is and where it is decided for.

    A class that is neither is left out, and so is a class that is ignored.
    """

    def compute(self) -> Tensor:
        hits = self.matrix.diagonal().double()
        scores = hits / (self.matrix.sum(dim=0) + self.matrix.sum(dim=1) - hits)  # 0 / 0 for a class that is neither
        if self.ignore_index is not None and 0 <= self.ignore_index < self.num_classes:
            scores[self.ignore_index] = torch.nan
        return scores.nanmean()


class LevelError(_Confusion):
    """Mean absolute difference between the decided and the true level."""

    higher_is_better = False

    def compute(self) -> Tensor:
        return (self._distances() * self.matrix).sum() / self.matrix.sum()


class Kappa(_Confusion):
    """Cohen's kappa with quadratic weights; NaN if all targets are of one level, which chance predicts as often.

    Source: Cohen, "Weighted kappa" (Psychological Bulletin 1968).
    """

    def compute(self) -> Tensor:
        matrix, squares = self.matrix.double(), self._distances().square()
        true, decided = matrix.sum(dim=1), matrix.sum(dim=0)
        by_chance = (squares * true[:, None] * decided).sum() / matrix.sum()
        return torch.where((true > 0).sum() > 1, 1 - (squares * matrix).sum() / by_chance, torch.nan)
