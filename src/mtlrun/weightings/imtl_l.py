"""IMTL-L: the loss balance of impartial multi-task learning."""

from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Logarithm, checked
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import LearnsWeights


class IMTLL(LearnsWeights, LossWeighting):
    """sum_k exp(s_k) L_k - s_k with learned s_k, which bring all weighted losses to the same scale.

    At the optimum in s, exp(s_k) L_k = 1. This is twice `uncertainty` in its regression form, with -s in place of s.

    Source: Liu, Li, Kuang, Xue, Chen, Yang, Liao & Zhang, "Towards Impartial Multi-task Learning" (ICLR 2021), its
    loss balance, with the base e.

    Args:
        init: initial s.
        common: see `Weighting` and `LearnsWeights`.
    """

    learns_from_losses_alone = True
    needs_positive_losses = True  # exp(s) L - s has no minimum in s for a negative L

    @checked
    def __init__(self, init: Logarithm = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.init = init

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.log_scale = nn.Parameter(torch.full((num_tasks,), float(self.init), dtype=torch.float64))

    def objective(self, losses: Tensor) -> Tensor:
        log_scale = self.log_scale[self.active]
        return (torch.exp(log_scale) * losses - log_scale).sum()
