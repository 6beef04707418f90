"""GradNorm: gradient normalization."""

from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Exponent, LearningRate, checked
from mtlrun.weightings.base import GradientWeighting, HeadLoss
from mtlrun.weightings.capabilities import LearnsWeights


class GradNorm(LearnsWeights, GradientWeighting):
    """A weighted sum of losses, with weights learned so that gradient norms match the tasks' training rates.

    Minimizes over w: sum_k | w_k ‖g_k‖ - Gbar r_k^alpha | with Gbar = mean_k w_k ‖g_k‖ and
    r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0)), the target held constant. Its derivative with
    respect to w_k is ‖g_k‖ sign(w_k ‖g_k‖ - target_k). After each step w is scaled to sum to K; if some tasks
    have no label in a batch, the others' weights keep their sum.

    Source: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks"
    (ICML 2018), equations 1 and 2 and algorithm 1. The paper takes the gradients with respect to the last
    shared layer only (`grad_wrt: last_layer`); the default here is exact. The paper leaves open what happens when a
    step makes a weight zero or negative: here it is held at 1e-3 of the mean, so that no loss is ever maximized.

    Args:
        alpha: strength of the pull toward equal training rates, >= 0. Paper: 1.5, and .12 for near-symmetric tasks.
        head_loss: paper: `weighted`.
        lr: learning rate of w. Paper: .025.
        common: see `GradientWeighting` and `LearnsWeights`.
    """

    learns_from_losses_alone = True
    needs_positive_losses = True  # it compares the fractions of the initial losses that are left
    initial_losses: Tensor

    @checked
    def __init__(
        self,
        alpha: Exponent = 1.5,
        *,
        head_loss: HeadLoss = "weighted",
        lr: LearningRate | None = 0.025,
        **common: Any,
    ) -> None:
        super().__init__(head_loss=head_loss, lr=lr, **common)
        self.alpha = alpha

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.learned_weights = nn.Parameter(torch.ones(num_tasks, dtype=torch.float64))
        self.register_buffer("initial_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        active = self.active
        first_seen = torch.isnan(self.initial_losses[active])
        self.initial_losses[active] = torch.where(first_seen, losses, self.initial_losses[active])

        weights = self.learned_weights.detach()[active].clone()
        norms = gram.diagonal().clamp_min(0).sqrt()
        initial = self.initial_losses[active]
        progress = torch.where(initial > 0, losses / initial, 1.0)
        rates = torch.where(progress.mean() > 0, progress / progress.mean(), 1.0)
        weighted_norms = weights * norms
        target = weighted_norms.mean() * rates**self.alpha

        gradient = torch.zeros_like(self.learned_weights)
        gradient[active] = norms * torch.sign(weighted_norms - target)
        self.learned_weights.grad = gradient
        return weights

    def learn(self) -> None:
        """Move w, then make it positive and scale it, for the tasks with a loss in this step."""
        weights, active = self.learned_weights.detach(), self.active
        total = weights[active].sum()
        moves = self.learned_weights.grad is not None  # not where the weights of an earlier step were used again
        super().learn()
        if moves:
            kept = weights[active].clamp_min(1e-3 * weights[active].abs().mean().clamp_min(1e-12))
            weights[active] = kept * total / kept.sum()
