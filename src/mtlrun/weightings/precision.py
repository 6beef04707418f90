"""The precision that weightings compute and keep their state in: float32, or that of what they are given if higher."""

import torch
from torch import Tensor


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for half precision, in which sums and running means lose what is added, else `dtype` itself."""
    return torch.promote_types(dtype, torch.float32)


def promoted(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is in half precision, else as it is; differentiable."""
    return tensor.to(at_least_float32(tensor.dtype))
