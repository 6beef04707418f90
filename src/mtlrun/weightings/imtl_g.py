"""IMTL-G: the gradient balance of impartial multi-task learning."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.fairness import regular_cosines

# Share of their magnitudes that the weights must add up to, for a sum of one to be asked of them.
_SMALLEST_SUM = 1e-3


class IMTLG(GradientWeighting):
    """The combination d = sum_k a_k g_k with sum_k a_k = 1 whose projections on all task gradients are equal.

    With u_k = g_k / ‖g_k‖, D = [g_1 - g_k] and U = [u_1 - u_k], k = 2..K, the paper's
    a_2..K = g_1 U^T (D U^T)^-1 and a_1 = 1 - sum a_2..K. The equations d . u_k = d . u_1 say the same without a first
    task: with C the cosines between the gradients, a_k is proportional to (C^-1 1)_k / ‖g_k‖. C is regularized, which
    gives the limit where gradients depend on each other: d = 0 where opposed ones allow no equal projections but zero.
    A task without a gradient gets no weight.

    Weights may be negative. Where their sum before it is made one is negative, the paper's d has equal negative
    projections, and increases all losses; near a sum of zero, it has no bound. There the sum of the magnitudes is made
    one in its place, which keeps the projections equal and positive, and is counted as a fallback.

    Source: Liu et al., "Towards Impartial Multi-task Learning" (ICLR 2021), algorithm 1, its gradient balance. The
    paper takes the gradients by the shared feature (`grad_wrt: representation`); the default here is exact.

    Args:
        head_loss: `unweighted`, as in the paper.
        every, grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        tasks = torch.nonzero(gram.diagonal() > 0).squeeze(1)
        weights = torch.zeros(len(gram), dtype=gram.dtype)
        if len(tasks):
            cosines, lengths = regular_cosines(gram[tasks][:, tasks].numpy())
            balanced = numpy.linalg.solve(cosines, numpy.ones(len(cosines))) / lengths
            total, magnitude = balanced.sum(), numpy.abs(balanced).sum()
            if total < _SMALLEST_SUM * magnitude:
                self.fall_back("no descent direction with equal projections has weights that sum to one")
                total = magnitude
            weights[tasks] = torch.from_numpy(balanced / total)
        return weights
