"""FairGrad: fair resource allocation among tasks."""

from typing import Annotated, Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Bounds, MaxNorm, checked
from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.fairness import clip_norm, fair_weights


class FairGrad(GradientWeighting):
    """d = G^T w with (G G^T) w = w^(-1/alpha), w > 0: the decrease of the losses is distributed alpha-fairly.

    Among directions d of equal length it maximizes sum_k (g_k . d)^(1 - alpha) / (1 - alpha), where g_k . d is the rate
    at which task k's loss falls. alpha = 1 maximizes the sum of logarithms and is `nash_mtl`; alpha near 0 tends to the
    plain sum, and large alpha maximizes the smallest rate. The equation also determines the length of d, which scales
    with the length g of the gradients as g^((1 - alpha) / (1 + alpha)).

    Source: Ban & Ji, "Fair Resource Allocation in Multi-Task Learning" (ICML 2024), equation 4 and algorithm 1. The
    paper's code also multiplies d by K before it clips its norm.

    Args:
        alpha: > 0, the notion of fairness; above 10 the solution of the equation may exceed double precision.
        max_norm: > 0, the largest norm of d, with respect to `grad_wrt`; None for no limit. The paper's code: 1.
        head_loss: `unweighted`, as in the paper's code.
        common: see `GradientWeighting`.
    """

    @checked
    def __init__(
        self,
        alpha: Annotated[float, Bounds(0, 100, open_low=True, limit=True)] = 2.0,
        max_norm: MaxNorm | None = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.alpha = alpha
        self.max_norm = max_norm

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        weights, solved = fair_weights(gram.numpy(), self.alpha)
        if not solved:
            self.fall_back("its equation is not solved after 100 Newton steps; the result of the last one is used")
        return torch.from_numpy(clip_norm(weights, gram.numpy(), self.max_norm))
