"""MetaBalance: auxiliary gradients of about the primary one's length."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlrun.config.bounds import Fraction, checked
from mtlrun.weightings.base import JacobianWeighting
from mtlrun.weightings.capabilities import SeesTensorSizes
from mtlrun.weightings.primary import HasPrimaryTask
from mtlrun.weightings.state.running_means import RunningMeans


class MetaBalance(HasPrimaryTask, SeesTensorSizes, JacobianWeighting):
    """The sum of the task gradients, each auxiliary one drawn toward the length of the primary one, tensor by tensor.

    For each parameter tensor on its own, with m_k the running mean of ‖g_k‖ with weight beta of the past, and task 0
    the primary one: d = g_0 + sum_k>0 (r m_0 / m_k + 1 - r) g_k.

    Source: He et al., "MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient Magnitudes of Auxiliary
    Tasks" (WWW 2022), and the authors' code. That one starts the means at zero, which cancels out in their ratio as
    long as every task has a loss in every step. Here they do not depend on where they start, and a task without a loss
    in a step keeps its means. In a step without a loss of the primary task, m_0 is that of the steps before; until its
    first loss, d is the plain sum.

    Args:
        relax_factor: r, in [0, 1]: with 0, d is the plain sum; with 1, all gradients are as long as the primary one, in
            the mean over the steps. The authors' code: .7.
        beta: weight of the past in the running means, in [0, 1]. Paper: .9.
        primary: see `HasPrimaryTask`.
        common: see `JacobianWeighting`.
    """

    @checked
    def __init__(self, relax_factor: Fraction = 0.7, beta: Fraction = 0.9, **common: Any) -> None:
        super().__init__(**common)
        self.relax_factor = relax_factor
        self.beta = beta
        self._sizes: list[int] | None = None

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.norms = RunningMeans(num_tasks, self.beta)

    def observe_tensor_sizes(self, sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)

    def combine(self, jacobian: Tensor, losses: Tensor) -> Tensor:
        pieces = jacobian.split([jacobian.shape[1]] if self._sizes is None else self._sizes, dim=1)
        # In float64, since float32 may not hold the squares of entries.
        norms = [torch.linalg.vector_norm(piece, dim=1, dtype=torch.float64) for piece in pieces]
        means = self.norms.update(self.active, torch.stack(norms, dim=1))
        primary, means = means[self.primary_position], means[self.active]
        known = ~primary.isnan().any()  # else it has had no loss so far
        inverse = torch.where(means > 0, 1 / means, 0.0).to(jacobian)
        lengths = (self.relax_factor * primary).to(jacobian)
        directions = []
        for length, column, piece in zip(lengths, inverse.T, pieces, strict=True):
            total = piece.sum(dim=0)
            balanced = length * (column @ piece) + (1 - self.relax_factor) * total
            directions.append(torch.where(known, balanced, total))
        return torch.cat(directions)
