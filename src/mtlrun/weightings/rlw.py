"""Random loss weighting."""

from typing import Any, Literal

import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.transfer import sent

Distribution = Literal["normal", "dirichlet"]


class RLW(LossWeighting):
    """sum_k w_k L_k with w drawn in each step: the softmax of K standard normal numbers, or Dirichlet(1, ..., 1).

    Source: Lin, Ye, Zhang & Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
    Learning" (TMLR 2022). The authors' LibMTL also applies the softmax to the Dirichlet draw, which already sums to
    one; this is not done here.

    Args:
        distribution: `normal` (before the softmax) or `dirichlet` (uniform on the simplex).
        common: see `Weighting`.
    """

    ignores_losses = True

    def __init__(self, distribution: Distribution = "normal", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("distribution", distribution, Distribution)
        self.distribution = distribution

    def objective(self, losses: Tensor) -> Tensor:
        # Drawn for all K tasks, so that a task's number does not depend on which others have labels, and on the CPU, so
        # that it does not depend on the device.
        logits = torch.empty(self.num_tasks, dtype=torch.float32)
        generator = self.generator()
        if self.distribution == "normal":
            logits.normal_(generator=generator)
        else:
            logits.exponential_(generator=generator).log_()  # exponential numbers divided by their sum are Dirichlet(1)
        logits = sent(logits, losses.device)
        weights = torch.softmax(logits[self.active].to(losses.dtype), dim=0)
        return (weights * losses).sum()
