"""GradDrop: gradient sign dropout."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import JacobianWeighting


class GradDrop(JacobianWeighting):
    """The sum of the task gradients, in each entry of only the positive or only the negative ones, chosen at random.

    In each entry, with P = (1 + sum_k g_k / sum_k |g_k|) / 2 and U uniform in [0, 1), mask_k is 1 for the positive g_k
    if P > U, for the negative ones if P < U, and else 0: d = sum_k (leak + (1 - leak) mask_k) g_k.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout" (NeurIPS 2020),
    equations 1 and 2 and algorithm 1. The paper uses gradients with respect to the shared
    representation (`grad_wrt: representation`), multiplied by the sign of the activations; the default here is exact.

    Args:
        leak: fraction of the dropped terms that is kept, in [0, 1]; 1 is the plain sum. Paper: 0.
        common: see `JacobianWeighting`.
    """

    def __init__(self, leak: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must be in [0, 1], found {leak}")
        self.leak = leak

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        total, magnitude = jacobian.sum(dim=0), jacobian.abs().sum(dim=0)
        positive_odds = 0.5 * (1 + torch.where(magnitude > 0, total / magnitude, 0.0))
        draw = torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=self.generator(total.device))
        kept = torch.where(positive_odds > draw, jacobian.clamp_min(0).sum(dim=0), jacobian.clamp_max(0).sum(dim=0))
        return self.leak * total + (1 - self.leak) * kept
