"""UPGrad: unconflicting projection of gradients."""

import numpy
import torch
from torch import Tensor

from mtlrun.weightings.dual_cone import DualConeWeighting
from mtlrun.weightings.solvers.cone import project_on_dual_cone


class UPGrad(DualConeWeighting):
    """The mean of the projections of all task gradients on their dual cone, the directions that conflict with no task.

    The projection of g_k is G^T v_k with v_k = argmin over v >= e_k of v^T G G^T v, and the weights are the mean of
    the v_k, weighted by the preferences: as no projection conflicts with a task, nor does any such mean. For two tasks
    with equal preferences this is PCGrad.

    Source: Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization" (2024, arXiv 2406.16232), proposition 1
    and the aggregator A_UPGrad; preferences as in the authors' TorchJD (`pref_vector`).

    Args:
        reduction: `mean` of the projected gradients, as in the paper, or `sum`.
        regularization, preferences, common: see `DualConeWeighting`.
    """

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        projected, solved = project_on_dual_cone(gram.numpy(), numpy.eye(len(gram)), self.regularization)
        if not solved:
            self.fall_back("a projection on the dual cone was not found to full precision; the best point is used")
        projected = self.relative_preferences(len(gram))[:, None] * projected
        return torch.from_numpy(projected.sum(axis=0) if self.reduction == "sum" else projected.mean(axis=0))
