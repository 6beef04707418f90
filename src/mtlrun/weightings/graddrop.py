"""GradDrop: gradient sign dropout."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import JacobianWeighting


class GradDrop(JacobianWeighting):
    """In each entry keep only the positive or only the negative parts, drawn by how much they outweigh the others.

    P = (1 + sum_k g_k / sum_k |g_k|) / 2 and U uniform in [0, 1), entry by entry; kept are the positive parts where
    P > U and the negative ones where P < U: d = sum_k (leak + (1 - leak) mask_k) g_k.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout" (NeurIPS 2020),
    equations 1 and 2 and algorithm 1. The paper acts on the gradient by the shared representation
    (`grad_wrt: representation`), multiplied there by the sign of the activations; the default here acts on the
    gradient by the shared parameters.

    Args:
        leak: share of what would be dropped that is kept all the same, in [0, 1]; 1 is the plain sum. Paper: 0.
        grad_wrt, losses, loss_transform: see `JacobianWeighting`.
    """

    def __init__(self, leak: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must be in [0, 1], found {leak}")
        self.leak = leak

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        total, magnitude = jacobian.sum(dim=0), jacobian.abs().sum(dim=0)
        positive_share = 0.5 * (1 + torch.where(magnitude > 0, total / magnitude, 0.0))
        draw = torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=self.generator(total.device))
        # An entry's parts of the drawn sign; of the others, the leak.
        kept = torch.where(positive_share > draw, jacobian.clamp_min(0).sum(dim=0), jacobian.clamp_max(0).sum(dim=0))
        return self.leak * total + (1 - self.leak) * kept
