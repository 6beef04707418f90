"""UPGrad: unconflicting projection of gradients."""

from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction
from mtlrun.weightings.solvers.cone import check_regularization, project_on_dual_cone


class UPGrad(GradientWeighting):
    """Projects each task gradient on the dual cone of all, the directions that conflict with no task; averages those.

    The projection of g_k is G^T v_k with v_k = argmin over v >= e_k of v^T G G^T v, and the weights are the mean of
    the v_k. For two tasks this is PCGrad.

    Source: Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization" (2024, arXiv 2406.16232), proposition 1
    and the aggregator A_UPGrad.

    Args:
        regularization: what is added to the squared lengths of the gradients, >= 0, as a share of the sum of all. It
            keeps weights bounded where gradients nearly depend on each other, and leaves conflicts of its size;
            0 solves exactly.
        reduction: `mean` of the projected gradients, as in the paper, or `sum`.
        head_loss: `unweighted` by default: projections do not concern what belongs to one task alone.
        every, grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, regularization: float = 1e-4, reduction: Reduction = "mean", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("reduction", reduction, Reduction)
        self.regularization = check_regularization(regularization)
        self.reduction = reduction

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        projected, found = project_on_dual_cone(gram.numpy(), numpy.eye(len(gram)), self.regularization)
        if not found:
            self.fall_back("a projection on the dual cone was not found to the last digit; what was found is used")
        return torch.from_numpy(projected.sum(axis=0) if self.reduction == "sum" else projected.mean(axis=0))
