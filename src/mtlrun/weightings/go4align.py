"""GO4Align: group optimization for multi-task alignment."""

from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlrun.weightings.base import LOG_EPSILON, LossWeighting


class GO4Align(LossWeighting):
    """Tasks of like progress form a group, and each weighs as much as the mean of its group.

    p_k <- p_k exp(-eta L_k), scaled to sum to one, from 1/K on; v_k = p_k (sum_j L_j) / L_k; the v_k are put into
    groups by k-means, and the weight of a task is the centre of its group. As the update of p multiplies only,
    p = softmax(-eta R) with R_k the sum of all L_k so far.

    Source: Shen, Wang, Xiao, van Noord & Worring, "GO4Align: Group Optimization for Multi-Task Alignment" (NeurIPS
    2024), appendix A, and the authors' code for v. That code's k-means begins at random; numbers on a line are grouped
    exactly here, and without draws.

    Args:
        num_groups: of tasks, >= 1; as many as tasks, or more, leave each task its own v. Tuned in the paper.
        step_size: eta, >= 0. Paper: 1e-4.
        loss_transform: see `Weighting`.
    """

    needs_positive_losses = True
    risk: Tensor

    def __init__(self, num_groups: int = 2, step_size: float = 1e-4, **common: Any) -> None:
        super().__init__(**common)
        if num_groups < 1:
            raise ValueError(f"num_groups must be >= 1, found {num_groups}")
        if not step_size >= 0:
            raise ValueError(f"step_size must be >= 0, found {step_size}")
        self.num_groups = num_groups
        self.step_size = step_size

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("risk", torch.zeros(num_tasks, dtype=torch.float64))  # R

    def objective(self, losses: Tensor) -> Tensor:
        values = losses.detach().to(self.risk)
        self.risk[self.active] += values
        shares = torch.softmax(-self.step_size * self.risk[self.active], dim=0)
        indicators = shares * (values.sum() + LOG_EPSILON) / (values + LOG_EPSILON)
        # The grouping is a matter of K numbers and many small steps: one copy to the CPU and one back.
        centres = torch.from_numpy(group_means(indicators.cpu().numpy(), self.num_groups))
        return (centres.to(losses) * losses).sum()


def group_means(values: NDArray[numpy.float64], num_groups: int) -> NDArray[numpy.float64]:
    """Return for each value the mean of its group in the best k-means clustering of `values` [n].

    Groups of numbers on a line are stretches of the sorted numbers. The least sum of squared distances for the first j
    numbers in g stretches is found from that in g - 1.
    """
    size = len(values)
    if num_groups >= size or not numpy.isfinite(values).all():  # values that are not finite make the step fail later
        return values.copy()
    order = numpy.argsort(values, kind="stable")
    centred = values[order] - values.mean()  # else digits are lost in the differences of squares below
    sums = numpy.concatenate([[0.0], numpy.cumsum(centred)])
    squares = numpy.concatenate([[0.0], numpy.cumsum(centred**2)])
    length = numpy.arange(size + 1) - numpy.arange(size + 1)[:, None]
    # within[i, j]: squared distances of the numbers i to j - 1 from their mean.
    within = squares - squares[:, None] - (sums - sums[:, None]) ** 2 / numpy.maximum(length, 1)
    within = numpy.where(length > 0, within, numpy.inf)

    best, starts = within[0], []  # best[j]: of the first j numbers, in as many stretches as rounds so far
    for _ in range(num_groups - 1):
        total = best[:, None] + within
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)

    means, end = numpy.empty(size), size
    for start in [*reversed(starts), numpy.zeros(size + 1, dtype=numpy.intp)]:
        stretch = order[start[end] : end]
        means[stretch] = values[stretch].mean()
        end = start[end]
    return means
