"""The projection on the simplex, which methods share that move their weights step by step."""

import torch
from torch import Tensor


def project_on_simplex(point: Tensor) -> Tensor:
    """Return the nearest point with entries >= 0 that sum to one; all of it on the point's device."""
    point = point - point.max()  # changes nothing, and keeps the digits of large entries
    descending = point.sort(descending=True).values
    counts = torch.arange(1, len(point) + 1, dtype=point.dtype, device=point.device)
    thresholds = (descending.cumsum(0) - 1) / counts
    num_positive = (descending > thresholds).sum(dim=0, keepdim=True)
    return (point - thresholds.gather(0, num_positive - 1)).clamp_min(0)


def share_out(task_weights: Tensor, active: slice | Tensor) -> tuple[Tensor, Tensor]:
    """Return what part of `task_weights` [K] belongs to the `active` tasks, and their weights scaled to sum to one."""
    mine = task_weights[active]
    part = mine.sum()
    return part, torch.where(part > 0, mine / part, 1 / len(mine))
