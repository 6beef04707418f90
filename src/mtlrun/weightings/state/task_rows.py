"""What methods remember that have a history for every parameter: a row per task, as long as the task gradients."""

from typing import Any

import torch
from torch import Tensor, nn


class TaskRows(nn.Module):
    """One row per task; zeros when first asked for, which is when the number of parameters is known.

    From then on the rows are in `state_dict`, which a fresh instance can load before it was ever asked.
    """

    rows: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", None)

    def like(self, jacobian: Tensor, num_tasks: int) -> Tensor:
        """Return the rows [num_tasks, P] for gradients `jacobian` [any number, P]; they may be written to."""
        if self.rows is None:
            self.rows = jacobian.new_zeros(num_tasks, jacobian.shape[1])
        elif self.rows.device != jacobian.device:  # loaded before they were moved
            self.rows = self.rows.to(jacobian.device)
        return self.rows

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        loaded = state_dict.get(f"{prefix}rows")
        self.rows = None if loaded is None else torch.empty_like(loaded)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def check_by_parameter(grad_wrt: str) -> None:
    """Raise ValueError unless gradients are taken by parameters, which are the same ones in each step."""
    if grad_wrt != "shared":
        raise ValueError(
            "grad_wrt must be 'shared' for a method that remembers gradients: those by the representation belong "
            f"to other samples in each step, found {grad_wrt!r}"
        )
