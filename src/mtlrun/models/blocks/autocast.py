"""What a model computes in float32 also where the rest of it is in half precision: the terms of the objective."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which operations on float32 tensors are in float32, whatever autocast does around it.

    Args:
        tensor: on the device of these tensors.
    """
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
