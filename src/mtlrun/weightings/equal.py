"""Equal weights."""

from typing import Any

from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import LossWeighting, Reduction


class Equal(LossWeighting):
    """sum_k L_k, or the mean: linear scalarization with equal weights, the baseline of all methods.

    Source: Caruana, "Multitask Learning" (Machine Learning 28, 1997); also called LS or EW.

    Args:
        reduction: `sum`, or `mean`, whose gradient is 1/K as long.
        common: see `Weighting`.
    """

    ignores_losses = True

    def __init__(self, reduction: Reduction = "sum", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.reduction = reduction

    @property
    def plain(self) -> bool:
        """True if the objective is the plain sum of the losses, so that no task affects the weight of another."""
        return self.reduction == "sum" and self.loss_transform == "identity"

    def objective(self, losses: Tensor) -> Tensor:
        return losses.sum() if self.reduction == "sum" else losses.mean()
