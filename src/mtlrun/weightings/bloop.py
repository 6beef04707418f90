"""Bloop: bilevel optimization with orthogonal projection."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import FractionAboveZero, NonNegative, checked
from mtlrun.weightings.base import JacobianWeighting
from mtlrun.weightings.inner_products import inner_products
from mtlrun.weightings.primary import HasPrimaryTask
from mtlrun.weightings.state.task_vectors import TaskVectors, check_grad_wrt_shared


class Bloop(HasPrimaryTask, JacobianWeighting):
    """The gradient of the primary task, and that of the others as far as it is orthogonal to the primary one's mean.

    With g_0 the gradient of the primary task, a the sum of those of the others, and r the running mean of g_0:

        r <- r + beta (g_0 - r)          d = g_0 + lambda (a - (a . r / ‖r‖²) r)

    So the others are minimized among the minimizers of the primary loss, which their part of d neither raises nor
    lowers, to first order and in the mean over batches.

    Source: Hsieh et al., "Careful with that Scalpel: Improving Gradient Surgery with an EMA" (ICML 2024), and the
    authors' code (ml-bloop), of which the default numbers are. r starts at the first g_0, as the code's default has it.
    In a step without a loss of the primary task, r is that of the steps before; before its first loss, nothing is
    projected.

    Args:
        auxiliary_weight: lambda, >= 0; 0 leaves the primary task alone. It is to be tuned; the authors' code: .1.
        beta: step size of the running mean, in (0, 1]; with 1, a is projected off g_0 itself. The authors' code: .1.
        primary: see `HasPrimaryTask`.
        common: see `JacobianWeighting`; `grad_wrt` must be `shared`.
    """

    started: Tensor

    @checked
    def __init__(self, auxiliary_weight: NonNegative = 0.1, beta: FractionAboveZero = 0.1, **common: Any) -> None:
        super().__init__(**common)
        check_grad_wrt_shared(self.grad_wrt)
        self.auxiliary_weight = auxiliary_weight
        self.beta = beta

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.average = TaskVectors()  # r, one vector: that of the primary task
        self.register_buffer("started", torch.tensor(False))

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        row = self.primary_row()
        (average,) = self.average.like(jacobian, 1)
        auxiliary = jacobian.new_ones(len(jacobian))
        primary = jacobian.new_zeros(jacobian.shape[1])
        if row is not None:
            auxiliary[row] = 0.0
            primary = jacobian[row]
            average += torch.where(self.started, self.beta, 1.0).to(average) * (primary - average)
            self.started.fill_(True)
        helping = auxiliary @ jacobian
        square, product = inner_products(average.unsqueeze(0), torch.stack([average, helping]))[0]
        along = torch.where(square > 0, product / square, 0.0).to(jacobian)
        direction: Tensor = primary + self.auxiliary_weight * (helping - along * average)
        return direction
