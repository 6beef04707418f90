"""Improvable gap balancing, by its heuristic (v1)."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import CountOrZero, checked
from mtlrun.weightings.base import LOG_EPSILON, LossWeighting
from mtlrun.weightings.state.epoch_means import EpochMeans


class IGB(LossWeighting):
    """sum_k w_k log L_k with w = K softmax_k(L_k / B_k): the further a task has to improve, the more it weighs.

    B_k is the mean of L_k over the epoch `base_epoch`; until its end, w = 1 (`scale_invariant`). For a task without a
    label in that epoch, L_k / B_k is taken as 1. The effective weight of L_k is w_k / L_k.

    Source: Dai, Fei & Lu, "Improvable Gap Balancing for Multi-Task Learning" (UAI 2023), IGBv1, with zero as the
    target loss, as in the authors' code. IGBv2 of the same paper, which learns w by soft
    actor-critic, is not part of this.

    Args:
        base_epoch: epoch, counted from 0, whose mean losses are B. The authors' code: 1.
        common: see `Weighting`.
    """

    needs_positive_losses = True
    base_losses: Tensor

    @checked
    def __init__(self, base_epoch: CountOrZero = 1, **common: Any) -> None:
        super().__init__(**common)
        self.base_epoch = base_epoch

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.means = EpochMeans(num_tasks)
        self.register_buffer("base_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def objective(self, losses: Tensor) -> Tensor:
        values = losses.detach().to(self.base_losses)
        if self.epoch == self.base_epoch:
            self.means.add(self.active, values)
        base = self.base_losses[self.active]  # NaN until it is known: then all weights are one
        gaps = torch.where(base > 0, values / base, 1.0)
        weights = len(losses) * torch.softmax(gaps, dim=0)
        return (weights.to(losses.dtype) * torch.log(losses + LOG_EPSILON)).sum()

    @property
    def first_epoch(self) -> int:
        return self.base_epoch + 2

    def epoch_ended(self) -> None:
        if self.epoch == self.base_epoch:
            self.base_losses = self.means.take()
        super().epoch_ended()
