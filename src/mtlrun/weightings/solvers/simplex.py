"""Projection on the simplex, for methods that move their weights step by step."""

import torch
from torch import Tensor


def project_on_simplex(point: Tensor) -> Tensor:
    """Return the nearest point whose entries are >= 0 and sum to one, without leaving the point's device."""
    point = point - point.max()  # the same projection, and large entries keep their digits
    descending = point.sort(descending=True).values
    counts = torch.arange(1, len(point) + 1, dtype=point.dtype, device=point.device)
    # Not by `cumsum`, which PyTorch refuses with deterministic algorithms on a GPU.
    sums = descending.expand(len(point), -1).tril().sum(dim=1)
    thresholds = (sums - 1) / counts
    num_positive = (descending > thresholds).sum(dim=0, keepdim=True)
    return (point - thresholds.gather(0, num_positive - 1)).clamp_min(0)
