"""FairGrad: fair resource allocation among tasks."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.solvers.fairness import check_max_norm, clip_norm, fair_weights


class FairGrad(GradientWeighting):
    """(G G^T) w = w^(-1/alpha), w > 0: the direction d = G^T w that shares the decrease of the losses alpha-fairly.

    Among directions d of one length it maximizes sum_k (g_k . d)^(1 - alpha) / (1 - alpha), where g_k . d is the rate
    at which task k's loss falls. alpha = 1 maximizes the sum of logarithms and is `nash_mtl`; alpha near 0 tends to the
    plain sum, large alpha to the largest of the smallest rates. The equation gives d a length of its own, which grows
    with that of the gradients, g, as g^((1 - alpha) / (1 + alpha)).

    Source: Ban & Ji, "Fair Resource Allocation in Multi-Task Learning" (ICML 2024), equation 4 and algorithm 1. The
    paper's code also multiplies d by K before it clips its norm.

    Args:
        alpha: > 0, what is thought fair; above 10 the equation may have no solution that double precision can hold.
        max_norm: > 0, the largest norm of d, by what `grad_wrt` names; None for no limit. The paper's code: 1.
        head_loss: `unweighted`, as in the paper's code.
        every, grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, alpha: float = 2.0, max_norm: float | None = 1.0, **common: Any) -> None:
        super().__init__(**common)
        if not alpha > 0:
            raise ValueError(f"alpha must be > 0, found {alpha}")
        self.alpha = alpha
        self.max_norm = check_max_norm(max_norm)

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        weights, found = fair_weights(gram.numpy(), self.alpha)
        if not found:
            self.fall_back("its equation is not solved after 100 Newton steps; the last of them is used")
        return torch.from_numpy(clip_norm(weights, gram.numpy(), self.max_norm))
