"""Whose loss or gradient is no longer finite: looked at again, slowly, once a run has to end for it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def find_non_finite(
    losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter], own: Mapping[str, Sequence[nn.Parameter]]
) -> tuple[str, str | None]:
    """Return what is not finite, in words, and the task that it belongs to, None if it is no single one's.

    Args:
        losses: {task: scalar with its graph}.
        shared: parameters that several losses reach.
        own: {task: parameters that its loss alone reaches}.
    """
    for name, loss in losses.items():
        if not torch.isfinite(loss):
            return f"the loss of task {name}", name
    for name, loss in losses.items():
        for grad in torch.autograd.grad(loss, [*shared, *own[name]], retain_graph=True, allow_unused=True):
            if grad is not None and not torch.isfinite(grad).all():
                return f"the gradient of task {name}", name
    return "the weighted sum of the task gradients", None
