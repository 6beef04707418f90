"""ConFIG: conflict-free inverse gradients."""

import numpy
import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.preferences import UsesPreferences
from mtlrun.weightings.solvers.cone import RANK_TOLERANCE, cosines

# Below this squared cosine with all task gradients, a direction counts as none.
_NO_DIRECTION = 1e-10


class ConFIG(UsesPreferences, GradientWeighting):
    """The direction whose cosines with the task gradients are equal, or in proportion to preferences.

    Its length is that of the projection on it of the sum of the gradients. With U the matrix whose rows are the unit
    gradients g_k / ‖g_k‖, and p the preferences, u = U^+ p / ‖U^+ p‖ and d = (sum_k g_k . u) u. For the matrix of
    cosines C = U U^T, U^+ p = U^T C^+ p, so that the Gram matrix is enough. If the gradients are linearly dependent and
    no such direction exists, u is the best one in the sense of least squares.

    Source: Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks" (ICLR
    2025, arXiv 2408.11104), equation 2; p are the direction weights of the authors' code, whose documentation advises
    equal ones. The paper's version with momentum, M-ConFIG, is an optimizer that uses one task per step, and not a
    weighting.

    Args:
        preferences: p, see `UsesPreferences`.
        head_loss: `unweighted` by default, since the direction is one of shared parameters.
        common: see `GradientWeighting`.
    """

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        num_tasks = len(gram)
        unit, lengths = cosines(gram.numpy())
        eigenvalues, vectors = numpy.linalg.eigh(unit)
        kept = eigenvalues > RANK_TOLERANCE
        preferences = self.relative_preferences(num_tasks)
        parts = (preferences[:, None] * vectors[:, kept]).sum(axis=0)  # of the preferences, along each eigenvector
        if parts @ parts <= _NO_DIRECTION * (preferences @ preferences):
            return torch.zeros(num_tasks, dtype=torch.float64)
        solution = vectors[:, kept] @ (parts / eigenvalues[kept])  # C^+ p
        reached = vectors[:, kept] @ parts  # the products of U^+ p with the unit gradients; p at full rank
        return torch.from_numpy((lengths @ reached) / (preferences * solution).sum() * solution / lengths)
