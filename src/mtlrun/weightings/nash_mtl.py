"""Nash-MTL: multi-task learning as a bargaining game."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import MaxNorm, checked
from mtlrun.weightings.base import GradientWeighting, HeadLoss
from mtlrun.weightings.solvers.fairness import clip_norm, fair_weights


class NashMTL(GradientWeighting):
    """The Nash bargaining solution d = G^T a with (G G^T) a = 1 / a, a > 0.

    Among directions d of equal length it maximizes sum_k log(g_k . d), where g_k . d is the gain of task k by d. It
    does not depend on the lengths of the gradients, and has the length sqrt(K): with `max_norm: 1`, always 1. For two
    tasks it is the direction of g_1 / ‖g_1‖ + g_2 / ‖g_2‖. If a convex combination of the gradients is zero, no
    direction improves all tasks: then a regularized equation gives nearly d = 0.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game" (ICML 2022), the equation that its algorithm 1
    solves. The paper solves it by a sequence of convex programs; here it is solved by Newton's method on the convex
    function that it minimizes.

    Args:
        max_norm: > 0, the largest norm of d, with respect to `grad_wrt`; None for no limit. The paper's code: 1.
        head_loss: `weighted`, as in the paper's code, where `max_norm` does not scale the loss of the heads; here it
            does.
        common: see `GradientWeighting`. The paper's code has `update_weights_every` too, but limits the norm in each
            step, not only when the weights are updated.
    """

    @checked
    def __init__(self, max_norm: MaxNorm | None = 1.0, *, head_loss: HeadLoss = "weighted", **common: Any) -> None:
        super().__init__(head_loss=head_loss, **common)
        self.max_norm = max_norm

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        weights, solved = fair_weights(gram.numpy(), alpha=1.0)
        if not solved:
            self.fall_back("its equation is not solved after 100 Newton steps; the result of the last one is used")
        return torch.from_numpy(clip_norm(weights, gram.numpy(), self.max_norm))
