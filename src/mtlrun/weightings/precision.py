"""The precision that weightings compute and keep their state in: float32, or that of what they are given if higher."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for half precision, in which sums and running means lose what is added, else `dtype` itself."""
    return torch.promote_types(dtype, torch.float32)


def promoted(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is in half precision, else as it is; differentiable."""
    if tensor.dtype is torch.float32:  # asking PyTorch takes longer, and each step asks often
        return tensor
    return tensor.to(at_least_float32(tensor.dtype))


@contextmanager
def full_precision(device: torch.device | None = None) -> Iterator[None]:
    """Keep all digits of the factors of float32 matrix products and convolutions, also where a GPU may use TF32.

    PyTorch's own switch is put back afterwards.

    Args:
        device: where the products are made; on the CPU there is nothing to be done.
    """
    if device is not None and device.type == "cpu":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        found = matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:  # a program has set PyTorch's newer switches, after which the older ones cannot be asked
        found = None
    # The older switches set the newer ones as well, and PyTorch raises where it finds them different.
    with _ieee([matmul, cudnn.conv]) if found is None else _without_tf32(*found):  # type: ignore[attr-defined]
        yield


@contextmanager
def _without_tf32(of_products: bool, of_convolutions: bool) -> Iterator[None]:
    """Set those of PyTorch's older switches that allow TF32 to full precision within the context."""
    before = torch.get_float32_matmul_precision() if of_products else None
    if before is not None:
        torch.set_float32_matmul_precision("highest")
    if of_convolutions:
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)
        if of_convolutions:
            torch.backends.cudnn.allow_tf32 = True


@contextmanager
def _ieee(backends: Sequence[Any]) -> Iterator[None]:
    """Set PyTorch's newer switches of these backends to full precision within the context."""
    switches = [each for each in backends if each.fp32_precision == "tf32"]
    for each in switches:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        for each in switches:
            each.fp32_precision = "tf32"
