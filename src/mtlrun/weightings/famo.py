"""FAMO: fast adaptive multitask optimization."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import ObservesLossesAfterStep

_EPSILON = 1e-8


class FAMO(ObservesLossesAfterStep, LossWeighting):
    """A weighted sum of log-losses, with weights learned so that all losses fall at the same relative rate.

    With z = softmax(xi), the objective is c sum_k z_k log(L_k - b_k), c = 1 / sum_k z_k / (L_k - b_k) held constant,
    so that the weights z_k c / (L_k - b_k) sum to one. After the optimizer step, the losses L_k' of the same batch
    are computed, and xi makes an Adam step along J_softmax(xi)^T delta, delta_k = log(L_k - b_k) - log(L_k' - b_k):
    a task whose loss fell less than the others' gains weight.

    Source: Liu, Feng, Stone & Liu, "FAMO: Fast Adaptive Multitask Optimization" (NeurIPS 2023), algorithm 1. It takes
    one extra forward pass per step.

    Args:
        lr: learning rate of xi, > 0. Paper: .025.
        weight_decay: weight decay of xi, >= 0. Paper: .001; .01 on Cityscapes.
        min_losses: b, a lower bound of all losses.
        common: see `Weighting`.
    """

    needs_positive_losses = True
    logits: Tensor
    before: Tensor
    first_moment: Tensor
    second_moment: Tensor
    updates: Tensor

    def __init__(self, lr: float = 0.025, weight_decay: float = 1e-3, min_losses: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        if not lr > 0:
            raise ValueError(f"lr must be > 0, found {lr}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, found {weight_decay}")
        # Not `Weighting.lr`: xi is not in the run's optimizer, but updated after its step, by the Adam below.
        self.step_size = lr
        self.weight_decay = weight_decay
        self.min_losses = min_losses

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        for name in ("logits", "before", "first_moment", "second_moment"):
            self.register_buffer(name, torch.zeros(num_tasks))
        self.register_buffer("updates", torch.zeros(()))

    def objective(self, losses: Tensor) -> Tensor:
        self.before[self.active] = losses.detach().to(self.before)
        shifted = losses - self.min_losses + _EPSILON
        z = torch.softmax(self.logits[self.active], dim=0).to(losses.dtype)
        scale = 1 / (z / shifted.detach()).sum()
        return (scale * z * torch.log(shifted)).sum()

    def observe_losses_after_step(self, losses: Tensor) -> None:
        active = self.active
        after = self.transform(losses).to(self.before)
        delta = torch.log(self.before[active] - self.min_losses + _EPSILON) - torch.log(
            after - self.min_losses + _EPSILON
        )
        z = torch.softmax(self.logits[active], dim=0)
        gradient = torch.zeros_like(self.logits)
        gradient[active] = z * (delta - (z * delta).sum())  # J_softmax^T delta
        self._adam(gradient + self.weight_decay * self.logits)

    def _adam(self, gradient: Tensor) -> None:
        """Update xi by an Adam step along `gradient`, with the default betas."""
        self.updates += 1
        self.first_moment.lerp_(gradient, 0.1)
        self.second_moment.lerp_(gradient.square(), 0.001)
        mean = self.first_moment / (1 - 0.9**self.updates)
        deviation = (self.second_moment / (1 - 0.999**self.updates)).sqrt()
        self.logits -= self.step_size * mean / (deviation + _EPSILON)
