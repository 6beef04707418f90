"""GradDrop: gradient sign dropout."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Fraction, checked
from mtlrun.weightings.base import JacobianWeighting
from mtlrun.weightings.capabilities import SeesRepresentation


class GradDrop(SeesRepresentation, JacobianWeighting):
    """The sum of the task gradients, in each entry of only the positive or only the negative ones, chosen at random.

    In each entry, with P = (1 + sum_k g_k / sum_k |g_k|) / 2 and U uniform in [0, 1), mask_k is 1 for the positive g_k
    if P > U, for the negative ones if P < U, and else 0: d = sum_k (leak + (1 - leak) mask_k) g_k.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout" (NeurIPS 2020),
    equations 1 and 2 and algorithm 1. The paper uses gradients with respect to the shared representation z
    (`grad_wrt: representation`); the default here is exact. There, P and the masks are made of
    sum_n sign(z_n) g_nk, the sum over the samples n of the batch, and hold for all of them (`activation_signs`).

    Args:
        leak: fraction of the dropped terms that is kept, in [0, 1]; 1 is the plain sum. Paper: 0.
        activation_signs: make P and the masks of gradients times the signs of the activations, summed over the batch,
            as in the paper; needs `grad_wrt: representation`.
        keep_norm: scale d to the length of sum_k g_k, as the authors' code in lingvo does.
        common: see `JacobianWeighting`.
    """

    @checked
    def __init__(
        self, leak: Fraction = 0.0, activation_signs: bool = False, keep_norm: bool = False, **common: Any
    ) -> None:
        super().__init__(**common)
        if activation_signs and self.grad_wrt != "representation":
            raise ValueError(
                f"activation_signs needs grad_wrt=representation, whose activations it is about, found {self.grad_wrt}"
            )
        self.leak = leak
        self.activation_signs = activation_signs
        self.keep_norm = keep_norm
        self._signs: Tensor | None = None  # [batch, activations of a sample]

    def observe_representation(self, representation: Tensor) -> None:
        self._signs = representation.flatten(1).sign() if self.activation_signs else None

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        kept = self._keep(jacobian)
        if not self.keep_norm:
            return kept
        length = torch.linalg.vector_norm(kept, dtype=torch.float64)
        total = torch.linalg.vector_norm(jacobian.sum(dim=0), dtype=torch.float64)
        return torch.where(length > 0, total / length, 0.0).to(kept) * kept

    def _keep(self, jacobian: Tensor) -> Tensor:
        """Return the sum of what is kept of the task gradients."""
        if not self.activation_signs:
            return self._drop(jacobian, jacobian)
        if self._signs is None:
            raise ValueError(
                "activation_signs needs the representation: call `observe_representation` before each step"
            )
        gradients = jacobian.view(len(jacobian), *self._signs.shape)
        return self._drop(gradients, (gradients * self._signs).sum(dim=1)).flatten()

    def _drop(self, gradients: Tensor, signed: Tensor) -> Tensor:
        """Return the sum of the gradients [K, ..., n] that the masks keep, which are made of `signed` [K, n]."""
        positive, negative = torch.zeros_like(signed[0]), torch.zeros_like(signed[0])
        for sign in signed:  # one by one, for the sake of memory
            positive += sign.clamp(min=0)
            negative += sign.clamp(max=0)
        magnitude = positive - negative
        odds = torch.where(magnitude > 0, positive / magnitude, 0.5)  # P
        draw = torch.rand(odds.shape, dtype=odds.dtype, device=odds.device, generator=self.generator(odds.device))
        chosen = odds > draw  # that both are equal has probability 0
        if gradients is signed:
            kept = torch.where(chosen, positive, negative)
            return kept if self.leak == 0 else self.leak * (positive + negative) + (1 - self.leak) * kept
        kept = torch.zeros_like(gradients[0])
        for gradient, sign in zip(gradients, signed, strict=True):
            mask = torch.where(chosen, sign > 0, sign < 0).to(gradients.dtype)
            kept += (self.leak + (1 - self.leak) * mask) * gradient
        return kept
