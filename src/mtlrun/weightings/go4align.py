"""GO4Align: group optimization for multi-task alignment."""

from typing import Any

import torch
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
        return (group_means(indicators, self.num_groups).to(losses.dtype) * losses).sum()


def group_means(values: Tensor, num_groups: int) -> Tensor:
    """Return for each value the mean of its group in the best k-means clustering of `values` [n], on their device.

    The groups are intervals of the sorted values. Dynamic programming: the smallest sum of squared distances for the
    first j values in g intervals follows from those for g - 1 intervals. No value is read, so that nothing waits.
    """
    size = len(values)
    if num_groups >= size:
        return values.clone()
    ordered, order = values.sort(stable=True)
    centered = ordered - ordered.mean()  # else the differences of squares below lose digits
    first = values.new_ones(size + 1, size).tril(-1)  # row j has ones for the first j values
    sums, squares = first @ centered, first @ centered.square()
    ends = torch.arange(size + 1, device=values.device)
    length = ends - ends.unsqueeze(1)
    # within[i, j]: sum of squared distances of the values i to j - 1 from their mean.
    within = squares - squares.unsqueeze(1) - (sums - sums.unsqueeze(1)).square() / length.clamp_min(1)
    within = torch.where(length > 0, within, torch.inf)

    best, starts = within[0], []  # best[j]: for the first j values, in as many intervals as iterations so far
    for _ in range(num_groups - 1):
        total = best.unsqueeze(1) + within
        starts.append(total.argmin(dim=0))
        best = total.amin(dim=0)

    group, end = torch.zeros_like(order), ends[-1:]
    for start in reversed(starts):
        end = start.gather(0, end)
        group += ends[:-1] >= end
    members = (group == ends[:num_groups].unsqueeze(1)).to(values)
    means = (members @ ordered) / members.sum(dim=1)
    return means[group][order.argsort()]
