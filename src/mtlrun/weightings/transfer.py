"""Copies of small tensors to the device, for which the host does not wait, and the one back that a step waits for."""

from collections.abc import Sequence

import torch
from torch import Tensor


def is_asynchronous(device: torch.device) -> bool:
    """Return True if a copy from the CPU to this device need not be waited for.

    What CUDA copies from memory that is not pinned it stages before the call returns, so that the memory may be reused
    at once. MPS does not.
    """
    return device.type not in ("cpu", "mps")


def sent(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor, in a precision, on a device; the host does not wait for that."""
    on_host = tensor if dtype is None else tensor.to(dtype)
    return on_host.to(device, non_blocking=is_asynchronous(device))


def numbers_on(device: torch.device, numbers: Sequence[float | Tensor]) -> Tensor:
    """Return numbers, some of which may be tensors [] on the device, as one tensor [n] in float64 on the device."""
    if not any(isinstance(number, Tensor) for number in numbers):
        return sent(torch.tensor(numbers, dtype=torch.float64), device)
    return torch.stack([sent(torch.as_tensor(number), device).double() for number in numbers])


def waited_for(tensor: Tensor) -> Tensor:
    """Return on the CPU what a solver there works with: the only copy in a training step that the host waits for.

    It is no error under `torch.cuda.set_sync_debug_mode("error")`, by which all other ones can be found.
    """
    mode = torch.cuda.get_sync_debug_mode() if tensor.is_cuda else 0
    if not mode:
        return tensor.cpu()
    torch.cuda.set_sync_debug_mode(0)
    try:
        return tensor.cpu()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
