"""Loss-balanced task weighting."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Exponent, checked
from mtlrun.weightings.base import LossWeighting


class LBTW(LossWeighting):
    """sum_k w_k L_k with w_k = (L_k(b) / L_k(0))^alpha: the less a loss fell since the epoch began, the more it weighs.

    L_k(b) is the loss on batch b, and L_k(0) that on the epoch's first batch with a label for the task; a task whose
    L_k(0) is zero has w_k = 1.

    Source: Liu, Liang & Gitter, "Loss-Balanced Task Weighting to Reduce Negative Transfer in Multi-Task Learning"
    (AAAI 2019). The authors' code also scales the weights of each step to sum to K (`normalize`).

    Args:
        alpha: strength of the weighting, >= 0; 0 gives equal weights. Paper: .5.
        normalize: scale the weights of each step to sum to the number of tasks with a loss, as the authors' code does.
        common: see `Weighting`.
    """

    needs_positive_losses = True
    initial_losses: Tensor

    @checked
    def __init__(self, alpha: Exponent = 0.5, normalize: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = alpha
        self.normalize = normalize

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("initial_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))  # of the epoch

    def objective(self, losses: Tensor) -> Tensor:
        now = losses.detach().to(self.initial_losses)
        before = self.initial_losses[self.active]
        initial = torch.where(torch.isnan(before), now, before)
        self.initial_losses[self.active] = initial
        weights = torch.where(initial > 0, now / initial, 1.0) ** self.alpha
        if self.normalize:
            total = weights.sum()
            weights = torch.where(total > 0, weights * len(weights) / total, 1.0)
        return (weights.to(losses.dtype) * losses).sum()

    def epoch_ended(self) -> None:
        super().epoch_ended()
        self.initial_losses.fill_(torch.nan)
