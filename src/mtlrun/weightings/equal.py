"""Equal weights."""

from typing import Any

from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import LossWeighting, Reduction


class Equal(LossWeighting):
    """sum_k L_k, or the mean: linear scalarisation with unit weights, the baseline of everything.

    Source: Caruana, "Multitask Learning" (Machine Learning 28, 1997); also called LS or EW.

    Args:
        reduction: `sum` or `mean`; with `mean`, the gradient is 1/K as long.
        loss_transform: see `Weighting`.
    """

    ignores_losses = True

    def __init__(self, reduction: Reduction = "sum", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.reduction = reduction

    @property
    def plain(self) -> bool:
        """True if the objective is the sum of the losses themselves, so that no task knows of another."""
        return self.reduction == "sum" and self.loss_transform == "identity"

    def objective(self, losses: Tensor) -> Tensor:
        return losses.sum() if self.reduction == "sum" else losses.mean()
