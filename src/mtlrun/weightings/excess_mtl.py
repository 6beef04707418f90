"""ExcessMTL: weights by estimated excess risks."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import CountOrZero, NonNegative, checked
from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import HeadLoss, JacobianWeighting, Reduction
from mtlrun.weightings.state.task_vectors import TaskVectors, check_grad_wrt_shared


class ExcessMTL(JacobianWeighting):
    """sum_k w_k g_k with large weights for tasks whose losses are far above their minimum, not for noisy labels.

    The excess risk of task k is estimated from its gradient and the elementwise sum of its squares over the steps, and
    taken relative to its initial value e_k0:

        S_k <- S_k + g_k²        e_k = g_k^T diag(S_k)^(-1/2) g_k        w_k <- w_k exp(eta e_k / e_k0), normalized

    d = sum_k w_k g_k. During the first epochs, the weights stay equal, and e_k0 is the mean of e_k over these epochs.

    Source: He et al., "Robust Multi-Task Learning with Excess Risks" (ICML 2024), equations 6, 7 and 9. The authors'
    code has no warm-up and takes e_k0 from the first step, scales the weights to sum to K, and trains heads by weighted
    losses (`warmup_epochs: 0`, `reduction: sum`, `head_loss: weighted`, and `eta: .01`). A task without a loss in a
    step keeps its weight, and the others redistribute their part of w among themselves.

    Args:
        eta: step size of the weights, >= 0; 0 keeps them equal. The authors' code: .01.
        warmup_epochs: epochs with equal weights at the start, >= 0. Paper: 3.
        reduction: `mean` for weights that sum to one, as in the paper; `sum` for K, as in the authors' code.
        head_loss: `unweighted`, or `weighted` by w as well, as in the authors' code.
        common: see `JacobianWeighting`; `grad_wrt` must be `shared`.
    """

    log_weights: Tensor
    initial_sum: Tensor
    initial_count: Tensor

    @checked
    def __init__(
        self,
        eta: NonNegative = 1.0,
        warmup_epochs: CountOrZero = 3,
        reduction: Reduction = "mean",
        *,
        head_loss: HeadLoss = "unweighted",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_grad_wrt_shared(self.grad_wrt)
        check_one_of("reduction", reduction, Reduction)
        check_one_of("head_loss", head_loss, HeadLoss)
        self.head_loss: HeadLoss = head_loss
        self.eta = eta
        self.warmup_epochs = warmup_epochs
        self.reduction = reduction

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.roots = TaskVectors()  # of S
        self.register_buffer("log_weights", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("initial_sum", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("initial_count", torch.zeros(num_tasks, dtype=torch.float64))

    @property
    def first_epoch(self) -> int:
        return self.warmup_epochs + 1

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        active = self.active
        excess = self._excess(jacobian)
        if self.epoch < self.warmup_epochs:
            self.initial_sum[active] += excess
            self.initial_count[active] += 1
        else:
            first = self.initial_sum[active] == 0  # also true of a task that had labels, but no gradient so far
            self.initial_sum[active] = torch.where(first, excess, self.initial_sum[active])
            self.initial_count[active] = torch.where(first, 1.0, self.initial_count[active])
            initial = self.initial_sum[active] / self.initial_count[active]
            before = self.log_weights[active]
            after = before + self.eta * torch.where(initial > 0, excess / initial, 0.0)
            self.log_weights[active] = after - after.logsumexp(dim=0) + before.logsumexp(dim=0)
        weights = self.log_weights[active].softmax(dim=0)
        if self.reduction == "sum":
            weights = weights * len(jacobian)
        self.head_weights = weights if self.head_loss == "weighted" else None
        return weights.to(jacobian) @ jacobian

    def _excess(self, jacobian: Tensor) -> Tensor:
        """Add this step to S, and return the estimates e [K]; squares might exceed the range of float32."""
        kept = self.roots.like(jacobian, self.num_tasks)
        roots = torch.hypot(kept[self.active], jacobian)
        kept[self.active] = roots
        return (torch.where(roots > 0, jacobian / roots, 0.0) * jacobian).sum(dim=1, dtype=torch.float64)
