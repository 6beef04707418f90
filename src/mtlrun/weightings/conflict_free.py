"""ConFIG: conflict-free inverse gradients."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.cone import RANK_TOLERANCE, cosines

# If no direction goes along with the gradients by more than this (a squared cosine), there is none.
_NO_DIRECTION = 1e-10


class ConFIG(GradientWeighting):
    """The direction that has one cosine with all task gradients, as long as the gradients' sum is along it.

    With the unit gradients g_k / ‖g_k‖ as the rows of U, u = U^+ 1 / ‖U^+ 1‖ and d = (sum_k g_k . u) u. For
    C = U U^T, the matrix of cosines, U^+ 1 = U^T C^+ 1, so that the Gram matrix is enough. Where the gradients depend
    on each other and no such direction exists, it is the best in the sense of least squares.

    Source: Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks" (ICLR
    2025, arXiv 2408.11104), equation 2. The momentum version of the paper, M-ConFIG, is an optimizer of its own, with
    one task per step, and not a weighting.

    Args:
        head_loss: `unweighted` by default: the direction does not concern what belongs to one task alone.
        every, grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        num_tasks = len(gram)
        unit, lengths = cosines(gram.numpy())
        eigenvalues, vectors = numpy.linalg.eigh(unit)
        kept = eigenvalues > RANK_TOLERANCE
        parts = vectors[:, kept].sum(axis=0)  # of a vector of ones, along each eigenvector
        if parts @ parts <= _NO_DIRECTION * num_tasks:
            return torch.zeros(num_tasks, dtype=torch.float64)
        solution = vectors[:, kept] @ (parts / eigenvalues[kept])  # C^+ 1; its sum is ‖U^+ 1‖²
        reached = vectors[:, kept] @ parts  # the products of U^+ 1 with the unit gradients; ones at full rank
        return torch.from_numpy((lengths @ reached) / solution.sum() * solution / lengths)
