"""Mean losses over an epoch, for methods that compare epochs."""

import torch
from torch import Tensor, nn


class EpochMeans(nn.Module):
    """Sums of K losses, and in how many steps each task had one.

    Args:
        num_tasks: K.
    """

    total: Tensor
    count: Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(num_tasks, dtype=torch.float64))

    def add(self, active: slice | Tensor, losses: Tensor) -> None:
        """Add the losses of one step, of the `active` tasks."""
        self.total[active] += losses.to(self.total)
        self.count[active] += 1

    def take(self) -> Tensor:
        """Return the means [K], NaN for a task without a loss, and start over."""
        means = self.total / self.count
        self.total.zero_()
        self.count.zero_()
        return means
