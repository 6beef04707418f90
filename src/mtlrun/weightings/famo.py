"""FAMO: fast adaptive multitask optimization."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import LearningRate, MaxNorm, NonNegative, Real, checked
from mtlrun.weightings.base import LossWeighting
from mtlrun.weightings.capabilities import ClipsSharedGradient, LearnsWeights, ObservesLossesAfterStep

_EPSILON = 1e-8


class FAMO(ClipsSharedGradient, ObservesLossesAfterStep, LearnsWeights, LossWeighting):
    """A weighted sum of log-losses, with weights learned so that all losses fall at the same relative rate.

    With z = softmax(xi), the objective is c sum_k z_k log(L_k - b_k), c = 1 / sum_k z_k / (L_k - b_k) held constant,
    so that the weights z_k c / (L_k - b_k) sum to one. After the optimizer step, the losses L_k' of the same batch
    are computed, and xi makes an Adam step along J_softmax(xi)^T delta, delta_k = log(L_k - b_k) - log(L_k' - b_k):
    a task whose loss fell less than the others' gains weight.

    Source: Liu, Feng, Stone & Liu, "FAMO: Fast Adaptive Multitask Optimization" (NeurIPS 2023), algorithm 1. It takes
    one extra forward pass per step.

    Args:
        lr: learning rate of xi. Paper: .025.
        weight_decay: weight decay of xi, >= 0. Paper: .001; .01 on Cityscapes.
        min_losses: b, a lower bound of the losses, one for all tasks or one per task, in the order of the tasks. A loss
            that may be negative needs a negative one.
        max_norm: largest norm of the shared parameters' gradient, > 0; None for no limit. The authors' code: 1.
        common: see `Weighting` and `LearnsWeights`.
    """

    learns_from_losses_alone = True
    bounds: Tensor
    before: Tensor

    @checked
    def __init__(
        self,
        lr: LearningRate | None = 0.025,
        weight_decay: NonNegative = 1e-3,
        min_losses: Real | Sequence[Real] = 0.0,
        max_norm: MaxNorm | None = None,
        **common: Any,
    ) -> None:
        super().__init__(lr=lr, **common)
        self.weight_decay = weight_decay
        self.min_losses = min_losses
        self.max_norm = max_norm

    @property
    def needs_positive_losses(self) -> bool:
        return max(self._min_losses(1), default=0.0) >= 0

    def lowest_losses(self, num_tasks: int) -> list[float]:
        bounds = self._min_losses(num_tasks)
        return [math.exp(bound) for bound in bounds] if self.loss_transform == "log" else bounds

    def _min_losses(self, num_tasks: int) -> list[float]:
        return list(self.min_losses) if isinstance(self.min_losses, Sequence) else [self.min_losses] * num_tasks

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        bounds = self._min_losses(num_tasks)
        if len(bounds) != num_tasks:
            raise ValueError(
                f"min_losses must be one number, or one for each of the {num_tasks} tasks, found {len(bounds)}"
            )
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.float64))
        self.logits = nn.Parameter(torch.zeros(num_tasks, dtype=torch.float64))  # xi
        self.register_buffer("before", torch.zeros(num_tasks, dtype=torch.float64))

    def objective(self, losses: Tensor) -> Tensor:
        self.before[self.active] = losses.detach().to(self.before)
        shifted = self._above_bounds(losses)
        z = torch.softmax(self.logits.detach()[self.active], dim=0).to(losses.dtype)
        scale = 1 / (z / shifted.detach()).sum()
        return (scale * z * torch.log(shifted)).sum()

    def observe_losses_after_step(self, losses: Tensor) -> None:
        active = self.active
        before, after = self.before[active], self.transform(losses).to(self.before)
        after = torch.maximum(after, self.bounds[active])  # the next step is refused if it stays below
        delta = torch.log(self._above_bounds(before)) - torch.log(self._above_bounds(after))
        z = torch.softmax(self.logits.detach()[active], dim=0)
        gradient = torch.zeros_like(self.logits)
        gradient[active] = z * (delta - (z * delta).sum())  # J_softmax^T delta
        self.logits.grad = gradient

    def _above_bounds(self, losses: Tensor) -> Tensor:
        return losses - self.bounds[self.active].to(losses) + _EPSILON
