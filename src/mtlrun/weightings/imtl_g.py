"""IMTL-G: the gradient balance of impartial multi-task learning."""

import numpy
import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.fairness import regular_cosines

# Smallest sum of the weights, relative to the sum of their magnitudes, that is scaled to one.
_SMALLEST_SUM = 1e-3


class IMTLG(GradientWeighting):
    """The combination d = sum_k a_k g_k with sum_k a_k = 1 that has equal projections on all task gradients.

    With u_k = g_k / ‖g_k‖, D = [g_1 - g_k] and U = [u_1 - u_k], k = 2..K, the paper's
    a_2..K = g_1 U^T (D U^T)^-1 and a_1 = 1 - sum a_2..K. The equations d . u_k = d . u_1 are equivalent, without a
    special first task: with C the cosines between the gradients, a_k is proportional to (C^-1 1)_k / ‖g_k‖. C is
    regularized, which gives the limit for dependent gradients: d = 0 if opposed ones allow only projections of zero. A
    task with a zero gradient gets no weight.

    Weights may be negative. If their sum before scaling is negative, the paper's d has equal negative projections, and
    increases all losses; near a sum of zero, it is unbounded. In these cases, the sum of magnitudes is scaled to one
    instead, which keeps the projections equal and positive, and counts as a fallback.

    Source: Liu et al., "Towards Impartial Multi-task Learning" (ICLR 2021), algorithm 1, its gradient balance. The
    paper takes gradients with respect to the shared feature (`grad_wrt: representation`); the default here is exact.

    Args:
        head_loss: `unweighted`, as in the paper.
        common: see `GradientWeighting`.
    """

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
