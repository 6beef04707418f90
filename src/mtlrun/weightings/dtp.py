"""Dynamic task prioritization."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Exponent, FractionAboveZero, OpenFraction, checked
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import ObservesPerformance


class DTP(ObservesPerformance, LossWeighting):
    """sum_k w_k L_k with w_k = -(1 - kbar_k)^gamma log kbar_k, the focal loss of the performance: hard tasks first.

    kbar_k is the running mean of the task's performance kappa_k in [0, 1], higher is better, on each batch:
    kbar <- a kappa + (1 - a) kbar, starting at the first batch's value. kappa is measured by the task (`performance`):
    the batch's accuracy for classification.

    Source: Guo, Haque, Huang, Yeung & Fei-Fei, "Dynamic Task Prioritization for Multitask Learning" (ECCV 2018),
    equations 3 to 5; the example-level weights of the same paper, inside a task's loss, are not part of this. The
    paper gives no value of a. By the formula, a task with a performance of 0 has an infinite weight; here kbar is
    clamped to `floor`.

    Args:
        discount: a, in (0, 1]: weight of the current batch in the running mean.
        gamma: focusing parameter, >= 0: the larger, the smaller the weights of tasks that perform well.
        floor: smallest kbar used in the formula, in (0, 1).
        common: see `Weighting`.
    """

    performance: Tensor

    @checked
    def __init__(
        self, discount: FractionAboveZero = 0.1, gamma: Exponent = 1.0, floor: OpenFraction = 1e-3, **common: Any
    ) -> None:
        super().__init__(**common)
        self.discount = discount
        self.gamma = gamma
        self.floor = floor

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        unknown = torch.full((num_tasks,), torch.nan, dtype=torch.float64)
        self.register_buffer("performance", unknown)  # kbar

    def observe_performance(self, performance: Tensor) -> None:
        mean = self.performance[self.active]
        performance = performance.to(mean)
        updated = self.discount * performance + (1 - self.discount) * mean
        self.performance[self.active] = torch.where(torch.isnan(mean), performance, updated)

    def objective(self, losses: Tensor) -> Tensor:
        # A task without a performance so far, as in a loop that never calls `observe_performance`, counts as the worst.
        mean = torch.nan_to_num(self.performance[self.active], nan=0.0).clamp(self.floor, 1.0)
        weights = -((1 - mean) ** self.gamma) * torch.log(mean)
        return (weights.to(losses.dtype) * losses).sum()
