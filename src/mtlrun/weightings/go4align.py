"""GO4Align: group optimization for multi-task alignment."""

from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlrun.config.bounds import Count, NonNegative, checked
from mtlrun.weightings.base import LOG_EPSILON, LossWeighting


class GO4Align(LossWeighting):
    """sum_k w_k L_k in which tasks of similar progress form a group and share the weight that is its mean.

    p_k <- p_k exp(-eta L_k), normalized to sum to one, starting at 1/K; v_k = p_k (sum_j L_j) / L_k; the v_k are
    grouped by k-means, and w_k is the center of task k's group. Since p is only multiplied, p = softmax(-eta R) with
    R_k the sum of all L_k so far.

    Source: Shen, Wang, Xiao, van Noord & Worring, "GO4Align: Group Optimization for Multi-Task Alignment" (NeurIPS
    2024), appendix A, and the authors' code for v. That code's k-means starts at random; here numbers on a line are
    clustered exactly, without randomness.

    Args:
        num_groups: number of groups, >= 1; with K or more, w = v. Tuned in the paper.
        step_size: eta, >= 0. Paper: 1e-4.
        common: see `Weighting`.
    """

    needs_positive_losses = True
    risk: Tensor

    @checked
    def __init__(self, num_groups: Count = 2, step_size: NonNegative = 1e-4, **common: Any) -> None:
        super().__init__(**common)
        self.num_groups = num_groups
        self.step_size = step_size

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        self.register_buffer("risk", torch.zeros(num_tasks, dtype=torch.float64))  # R

    def objective(self, losses: Tensor) -> Tensor:
        values = losses.detach().to(self.risk)
        self.risk[self.active] += values
        progress = torch.softmax(-self.step_size * self.risk[self.active], dim=0)
        indicators = progress * (values.sum() + LOG_EPSILON) / (values + LOG_EPSILON)
        # Clustering takes many small steps on K numbers: one copy to the CPU and one back.
        centers = torch.from_numpy(group_means(indicators.cpu().numpy(), self.num_groups))
        return (centers.to(losses) * losses).sum()


def group_means(values: NDArray[numpy.float64], num_groups: int) -> NDArray[numpy.float64]:
    """Return for each value the mean of its group in the best k-means clustering of `values` [n].

    The groups are intervals of the sorted values. Dynamic programming: the smallest sum of squared distances for the
    first j values in g intervals follows from those for g - 1 intervals.
    """
    size = len(values)
    if num_groups >= size or not numpy.isfinite(values).all():  # a step with non-finite values fails later
        return values.copy()
    order = numpy.argsort(values, kind="stable")
    centered = values[order] - values.mean()  # else the differences of squares below lose digits
    sums = numpy.concatenate([[0.0], numpy.cumsum(centered)])
    squares = numpy.concatenate([[0.0], numpy.cumsum(centered**2)])
    length = numpy.arange(size + 1) - numpy.arange(size + 1)[:, None]
    # within[i, j]: sum of squared distances of the values i to j - 1 from their mean.
    within = squares - squares[:, None] - (sums - sums[:, None]) ** 2 / numpy.maximum(length, 1)
    within = numpy.where(length > 0, within, numpy.inf)

    best, starts = within[0], []  # best[j]: for the first j values, in as many intervals as iterations so far
    for _ in range(num_groups - 1):
        total = best[:, None] + within
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)

    means, end = numpy.empty(size), size
    for start in [*reversed(starts), numpy.zeros(size + 1, dtype=numpy.intp)]:
        group = order[start[end] : end]
        means[group] = values[group].mean()
        end = start[end]
    return means
