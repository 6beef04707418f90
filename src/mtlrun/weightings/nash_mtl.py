"""Nash-MTL: multi-task learning as a bargaining game."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting, HeadLoss
from mtlrun.weightings.solvers.fairness import check_max_norm, clip_norm, fair_weights


class NashMTL(GradientWeighting):
    """(G G^T) a = 1 / a, a > 0: the direction d = G^T a on which bargaining tasks agree.

    Among directions d of one length it maximizes sum_k log(g_k . d), the Nash bargaining solution, where g_k . d is
    what task k wins by d. It does not depend on the lengths of the gradients, and its own is sqrt(K): with
    `max_norm: 1`, always 1. For two tasks it is that of g_1 / ‖g_1‖ + g_2 / ‖g_2‖. Where a convex
    combination of the gradients is zero, there is nothing to win: then a regularized equation gives nearly d = 0.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game" (ICML 2022), the equation that its algorithm 1
    solves. The paper solves it by a sequence of convex programmes; here it is a Newton method on the one convex
    function whose minimum it is.

    Args:
        max_norm: > 0, the largest norm of d, by what `grad_wrt` names; None for no limit. The paper's code: 1.
        head_loss: `weighted`, as in the paper's code; there the limit on the norm does not reach the heads, here it
            does.
        update_weights_every: the paper's code has this too; there the norm is limited in each
            step, here with the weights.
        grad_wrt, losses, loss_transform: see `GradientWeighting`.
    """

    def __init__(self, max_norm: float | None = 1.0, *, head_loss: HeadLoss = "weighted", **common: Any) -> None:
        super().__init__(head_loss=head_loss, **common)
        self.max_norm = check_max_norm(max_norm)

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        weights, found = fair_weights(gram.numpy(), alpha=1.0)
        if not found:
            self.fall_back("its equation is not solved after 100 Newton steps; the last of them is used")
        return torch.from_numpy(clip_norm(weights, gram.numpy(), self.max_norm))
