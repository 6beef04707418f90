"""Task weights on the simplex, for methods that move them step by step."""

import torch
from torch import Tensor, nn


class SimplexWeights(nn.Module):
    """K weights >= 0 that sum to one, equal at the start.

    A step moves the weights of the active tasks only: these redistribute their part of the sum among themselves.

    Args:
        num_tasks: K.
    """

    values: Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))

    def of(self, active: slice | Tensor) -> Tensor:
        """Return the weights of the `active` tasks, scaled to sum to one."""
        weights = self.values[active]
        part = weights.sum()
        return torch.where(part > 0, weights / part, 1 / len(weights))

    def move(self, active: slice | Tensor, weights: Tensor) -> None:
        """Set the weights of the `active` tasks to `weights`, which sum to one, times their part of the sum."""
        self.values[active] = self.values[active].sum() * weights
