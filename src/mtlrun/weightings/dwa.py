"""Dynamic weight average."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Positive, checked
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.state.epoch_means import EpochMeans


class DWA(LossWeighting):
    """sum_k w_k L_k with w = K softmax(r / T), r_k = L_k(t-1) / L_k(t-2), from the mean losses of the last two epochs.

    Source: Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention" (CVPR 2019), equation 7. Weights are
    one in the first two epochs. A task without a label in one of the two epochs, or with a mean loss of zero in the
    earlier one, has r = 1.

    Args:
        temperature: T > 0; the larger, the more equal the weights.
        common: see `Weighting`.
    """

    needs_positive_losses = True
    task_weights: Tensor
    means: Tensor

    @checked
    def __init__(self, temperature: Positive = 2.0, **common: Any) -> None:
        super().__init__(**common)
        self.temperature = temperature

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("task_weights", torch.ones(num_tasks, dtype=torch.float64))
        self.epoch_means = EpochMeans(num_tasks)
        # Of the epochs t-2 and t-1.
        self.register_buffer("means", torch.full((2, num_tasks), torch.nan, dtype=torch.float64))

    def objective(self, losses: Tensor) -> Tensor:
        self.epoch_means.add(self.active, losses.detach())
        return (self.task_weights[self.active].to(losses.dtype) * losses).sum()

    @property
    def first_epoch(self) -> int:
        return 3

    def epoch_ended(self) -> None:
        super().epoch_ended()
        self.means = torch.stack([self.means[1], self.epoch_means.take()])
        ratio = torch.nan_to_num(self.means[1] / self.means[0], nan=1.0, posinf=1.0)
        self.task_weights = self.num_tasks * torch.softmax(ratio / self.temperature, dim=0)
