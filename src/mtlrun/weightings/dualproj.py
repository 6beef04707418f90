"""DualProj: the mean gradient, projected so that it conflicts with no task."""

import torch
from torch import Tensor

from mtlrun.weightings.dual_cone import DualConeWeighting
from mtlrun.weightings.solvers.cone import project_on_dual_cone


class DualProj(DualConeWeighting):
    """The mean gradient, projected on the dual cone of the task gradients, the directions that conflict with no task.

    The projection is G^T v with v = argmin over v >= p of v^T G G^T v, where p are the weights of the mean: the
    preferences, scaled to sum to one.

    Source: Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning" (NeurIPS 2017), which projects the
    gradient of the present task so that it conflicts with no earlier one; for the mean of several tasks, as DualProj,
    in Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization" (2024, arXiv 2406.16232); preferences as in
    the latter authors' TorchJD (`pref_vector`).

    Args:
        reduction: what is projected: the `mean` of the task gradients, or their `sum`.
        regularization, preferences, common: see `DualConeWeighting`.
    """

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        num_tasks = len(gram)
        start = self.relative_preferences(num_tasks) * (1.0 if self.reduction == "sum" else 1 / num_tasks)
        projected, solved = project_on_dual_cone(gram.numpy(), start[None], self.regularization)
        if not solved:
            self.fall_back("the projection on the dual cone was not found to full precision; the best point is used")
        return torch.from_numpy(projected[0])
