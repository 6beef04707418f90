"""MGDA: the multiple-gradient descent algorithm."""

from typing import Annotated, Any, Literal

import numpy
import torch
from torch import Tensor

from mtlrun.config.bounds import Bounds, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, HeadLoss
from mtlrun.weightings.solvers.frank_wolfe import frank_wolfe_weights
from mtlrun.weightings.solvers.minimum_norm import minimum_norm_weights

Normalization = Literal["none", "l2", "loss", "loss+"]
Solver = Literal["exact", "frank_wolfe"]


class MGDA(GradientWeighting):
    """The shortest vector in the convex hull of the task gradients: min over w in the simplex of ‖sum_k w_k g_k‖².

    Source: Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization" (Comptes Rendus
    Mathematique 350, 2012); Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization" (NeurIPS 2018),
    algorithm 2. The paper solves by Frank-Wolfe, which can stop far from the minimum where the gradients differ in
    length, and then makes steps that conflict with a task; here the minimum is exact, up to rounding.

    There are no preferences between tasks: whatever the gradients are multiplied by, the longer one gets the smaller
    weight, so that a factor on a loss would work against its task.

    Args:
        normalization: what each gradient is divided by to compute the weights: `none`, its norm (`l2`), its loss
            (`loss`) or both (`loss+`). The weights are then applied to the original gradients, as in the paper's code.
        solver: `exact`, an active-set method; or `frank_wolfe`, the paper's.
        max_iterations: of `frank_wolfe` only: largest number of iterations, >= 1; None for 250.
        tolerance: of `frank_wolfe` only: iterations stop when the duality gap is at most this fraction, > 0, of the
            mean squared gradient norm; None for 1e-5.
        head_loss: paper: `weighted`.
        common: see `GradientWeighting`.
    """

    @checked
    def __init__(
        self,
        normalization: Normalization = "none",
        solver: Solver = "exact",
        max_iterations: Annotated[int, Bounds(1, 10**6, limit=True, null="250")] | None = None,
        tolerance: Annotated[float, Bounds(0, 1, open_low=True, limit=True, null="1e-5")] | None = None,
        *,
        head_loss: HeadLoss = "weighted",
        **common: Any,
    ) -> None:
        super().__init__(head_loss=head_loss, **common)
        check_one_of("normalization", normalization, Normalization)
        check_one_of("solver", solver, Solver)
        if solver == "exact":
            for name, value in {"max_iterations": max_iterations, "tolerance": tolerance}.items():
                if value is not None:
                    raise ValueError(f"{name} must be null with solver=exact, which needs none, found {value}")
        self.normalization = normalization
        self.solver = solver
        self.max_iterations = 250 if max_iterations is None else max_iterations
        self.tolerance = 1e-5 if tolerance is None else tolerance

    @property
    def needs_positive_losses(self) -> bool:
        return self.normalization in ("loss", "loss+")

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        products = gram.numpy()
        scale = numpy.ones(len(products))
        if self.normalization in ("l2", "loss+"):
            scale *= numpy.sqrt(numpy.diagonal(products))
        if self.normalization in ("loss", "loss+"):
            scale *= losses.numpy()
        scale = numpy.where(scale > 0, scale, 1.0)  # nothing is divided by zero
        scaled = products / scale[:, None] / scale
        if self.solver == "frank_wolfe":
            return torch.from_numpy(frank_wolfe_weights(scaled, self.max_iterations, self.tolerance))
        weights, solved = minimum_norm_weights(scaled)
        if not solved:
            self.fall_back("the shortest combination was not found to full precision; the best one so far is used")
        return torch.from_numpy(weights)
