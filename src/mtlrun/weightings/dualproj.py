"""DualProj: the mean gradient, projected so that it conflicts with no task."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction
from mtlrun.weightings.solvers.cone import check_regularization, project_on_dual_cone


class DualProj(GradientWeighting):
    """Projects the mean gradient on the dual cone of all task gradients, the directions that conflict with no task.

    The projection is G^T v with v = argmin over v >= 1/K of v^T G G^T v.

    Source: Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning" (NeurIPS 2017), which projects the
    gradient of the present task off those of earlier ones; for the mean of several tasks as DualProj in Quinton & Rey,
    "Jacobian Descent for Multi-Objective Optimization" (2024, arXiv 2406.16232).

    Args:
        regularization: what is added to the squared lengths of the gradients, >= 0, as a share of the sum of all. It
            keeps weights bounded where gradients nearly depend on each other, and leaves conflicts of its size;
            0 solves exactly.
        reduction: what is projected, the `mean` of the gradients or their `sum`.
        head_loss: `unweighted` by default: the projection does not concern what belongs to one task alone.
        every, grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, regularization: float = 1e-4, reduction: Reduction = "mean", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.regularization = check_regularization(regularization)
        self.reduction = reduction

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        num_tasks = len(gram)
        start = numpy.full((1, num_tasks), 1.0 if self.reduction == "sum" else 1 / num_tasks)
        projected, found = project_on_dual_cone(gram.numpy(), start, self.regularization)
        if not found:
            self.fall_back("the projection on the dual cone was not found to the last digit; what was found is used")
        return torch.from_numpy(projected[0])
