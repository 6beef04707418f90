"""GradNorm: gradient normalization."""

from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.weightings.base import GradientWeighting, HeadLoss, check_lr


class GradNorm(GradientWeighting):
    """A weighted sum of losses, with weights learned so that gradient norms match the tasks' training rates.

    Minimizes over w: sum_k | w_k ‖g_k‖ - Gbar r_k^alpha | with Gbar = mean_k w_k ‖g_k‖ and
    r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0)), the target held constant. Its derivative with
    respect to w_k is ‖g_k‖ sign(w_k ‖g_k‖ - target_k). After each step w is scaled to sum to K.

    Source: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks"
    (ICML 2018), equations 1 and 2 and algorithm 1. The paper takes the gradients with respect to the last
    shared layer only (`grad_wrt: last_layer`); the default here is exact. The paper leaves open what happens when a
    step makes a weight zero or negative: here it is held at 1e-3 of the mean, so that no loss is ever maximized.

    Args:
        alpha: strength of the pull toward equal training rates, >= 0. Paper: 1.5, and .12 for near-symmetric tasks.
        head_loss: paper: `weighted`.
        lr: learning rate of w, by the run's optimizer. Paper: .025.
        common: see `GradientWeighting`.
    """

    initial_losses: Tensor

    def __init__(
        self,
        alpha: float = 1.5,
        *,
        head_loss: HeadLoss = "weighted",
        lr: float | None = 0.025,
        **common: Any,
    ) -> None:
        super().__init__(head_loss=head_loss, **common)
        self.lr = check_lr(lr)
        if not alpha >= 0:
            raise ValueError(f"alpha must be >= 0, found {alpha}")
        self.alpha = alpha

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.learned_weights = nn.Parameter(torch.ones(num_tasks, dtype=torch.float64))
        self.register_buffer("initial_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        active = self.active
        self._normalize()
        first_seen = torch.isnan(self.initial_losses[active])
        self.initial_losses[active] = torch.where(first_seen, losses, self.initial_losses[active])

        weights = self.learned_weights.detach()[active].clone()
        norms = gram.diagonal().clamp_min(0).sqrt()
        if (losses < 0).any():
            raise ValueError(f"gradnorm compares relative losses, which must be >= 0, found {losses.tolist()}")
        initial = self.initial_losses[active]
        progress = torch.where(initial > 0, losses / initial, 1.0)
        rates = torch.where(progress.mean() > 0, progress / progress.mean(), 1.0)
        weighted_norms = weights * norms
        target = weighted_norms.mean() * rates**self.alpha

        gradient = torch.zeros_like(self.learned_weights)
        gradient[active] = norms * torch.sign(weighted_norms - target)
        self.learned_weights.grad = gradient
        return weights

    def _normalize(self) -> None:
        """Make the weights positive and scale them to sum to K, since the optimizer has moved them."""
        kept = self.learned_weights.detach().clamp_min(
            1e-3 * self.learned_weights.detach().abs().mean().clamp_min(1e-12)
        )
        self.learned_weights.data.copy_(kept * self.num_tasks / kept.sum())
