"""ConFIG: conflict-free inverse gradients."""

import numpy
import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.cone import RANK_TOLERANCE, cosines

# Below this squared cosine with all task gradients, a direction counts as none.
_NO_DIRECTION = 1e-10


class ConFIG(GradientWeighting):
    """The direction that has the same cosine with all task gradients, with the length of their sum's projection on it.

    With U the matrix whose rows are the unit gradients g_k / ‖g_k‖, u = U^+ 1 / ‖U^+ 1‖ and d = (sum_k g_k . u) u. For
    the matrix of cosines C = U U^T, U^+ 1 = U^T C^+ 1, so that the Gram matrix is enough. If the gradients are linearly
    dependent and no such direction exists, u is the best one in the sense of least squares.

    Source: Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks" (ICLR
    2025, arXiv 2408.11104), equation 2. The paper's version with momentum, M-ConFIG, is an optimizer that uses one
    task per step, and not a weighting.

    Args:
        head_loss: `unweighted` by default, since the direction is one of shared parameters.
        common: see `GradientWeighting`.
    """

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
