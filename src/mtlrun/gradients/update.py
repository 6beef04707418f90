"""What a step did."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Update:
    """What a step did, for the log. The tensors carry no graph.

    Args:
        losses: the K losses of the whole batch.
        weights: the effective weights [K] of the losses, None for a method that has none.
        gram: the inner products [K, K] of the task gradients, on the CPU, None where they were not taken.
    """

    losses: Tensor
    weights: Tensor | None = None
    gram: Tensor | None = None
