"""Smooth Tchebycheff scalarization."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import CountOrZero, Positive, checked
from mtlrun.weightings.base import LOG_EPSILON, LossWeighting
from mtlrun.weightings.preferences import UsesPreferences
from mtlrun.weightings.state.epoch_means import EpochMeans


class STCH(UsesPreferences, LossWeighting):
    """K mu log sum_k exp(lambda_k (log L_k - log z_k) / mu): the smoothed maximum of the relative losses.

    The first `warmup_epochs` + 1 epochs are trained on sum_k log L_k (`scale_invariant`), and z_k is the mean of L_k in
    the last of them; only a longer run reaches the formula. For a task without a label in that epoch, z_k is its first
    loss thereafter.

    Source: Lin, Zhang, Yang, Liu, Wang & Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization"
    (ICML 2024). The logarithm, z, the warm-up and the factor K, with lambda = 1, are those of the authors' multi-task
    code.

    Args:
        mu: smoothness, > 0: toward 0, only the task with the largest relative loss is trained; toward infinity, this is
            `scale_invariant`. Paper: .01, .1, .5 and 1.
        warmup_epochs: number of epochs before the one whose mean losses are z, >= 0.
        preferences: lambda, see `UsesPreferences`.
        common: see `Weighting`.
    """

    needs_positive_losses = True
    reference: Tensor

    @checked
    def __init__(self, mu: Positive = 1.0, warmup_epochs: CountOrZero = 4, **common: Any) -> None:
        super().__init__(**common)
        self.mu = mu
        self.warmup_epochs = warmup_epochs

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.means = EpochMeans(num_tasks)
        self.register_buffer("reference", torch.full((num_tasks,), torch.nan, dtype=torch.float64))  # z

    def objective(self, losses: Tensor) -> Tensor:
        active, values = self.active, losses.detach().to(self.reference)
        logarithms = torch.log(losses + LOG_EPSILON)
        if self.epoch <= self.warmup_epochs:
            if self.epoch == self.warmup_epochs:
                self.means.add(active, values)
            return logarithms.sum()
        reference = torch.where(torch.isnan(self.reference[active]), values, self.reference[active])
        self.reference[active] = reference
        relative = logarithms - torch.log(reference + LOG_EPSILON).to(losses.dtype)
        scaled = self.active_preferences().to(losses.dtype) * relative / self.mu
        return len(losses) * self.mu * torch.logsumexp(scaled, dim=0)

    @property
    def first_epoch(self) -> int:
        return self.warmup_epochs + 2

    def epoch_ended(self) -> None:
        if self.epoch == self.warmup_epochs:
            self.reference = self.means.take()
        super().epoch_ended()
