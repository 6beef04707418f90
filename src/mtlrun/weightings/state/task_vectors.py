"""Per-task state with one entry per shared parameter, such as a running mean of the task gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.weightings.precision import at_least_float32


class TaskVectors(nn.Module):
    """One vector per task, created as zeros at its first use, when the number of parameters is known.

    They are in float32 at least. From then on they are in `state_dict`, which an instance can load before its first
    use.
    """

    vectors: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("vectors", None)

    def like(self, jacobian: Tensor, num_tasks: int) -> Tensor:
        """Return the vectors [num_tasks, P] for task gradients `jacobian` [..., P]; they may be written to."""
        if self.vectors is None:
            dtype = at_least_float32(jacobian.dtype)
            self.vectors = jacobian.new_zeros(num_tasks, jacobian.shape[1], dtype=dtype)
        elif self.vectors.device != jacobian.device:  # loaded before the weighting was moved
            self.vectors = self.vectors.to(jacobian.device)
        return self.vectors

    def approach(self, jacobian: Tensor, kept: Tensor, active: slice | Tensor, num_tasks: int) -> Tensor:
        """Move vectors v to g + kept (v - g), and return them; nothing as large as they are is made beside them.

        Args:
            jacobian: task gradients g [number of active tasks, P].
            kept: [number of active tasks, 1].
            active: which of the tasks these are; see `Weighting.active`.
            num_tasks: K.
        """
        vectors = self.like(jacobian, num_tasks)
        moved = vectors[active]  # for all tasks, the vectors themselves
        moved.sub_(jacobian).mul_(kept).add_(jacobian)
        if not isinstance(active, slice):
            vectors[active] = moved
        return moved

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        loaded = state_dict.get(f"{prefix}vectors")
        self.vectors = None if loaded is None else torch.empty_like(loaded)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def check_grad_wrt_shared(grad_wrt: str) -> None:
    """Raise ValueError unless task gradients are taken with respect to the parameters, the same ones in each step."""
    if grad_wrt != "shared":
        raise ValueError(
            "grad_wrt must be 'shared' for a method that remembers gradients: those with respect to the representation "
            f"belong to other samples in each step, found {grad_wrt!r}"
        )
