"""The early end of a generation whose result cannot be in memory."""

import torch


def check_room(*shape: int) -> None:
    """Raise PyTorch's RuntimeError now, and not after minutes, if there is no memory for numbers of this shape.

    The system gives out the memory at once, and takes it only when it is written to.
    """
    torch.empty(shape)
