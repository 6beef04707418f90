"""Copies to a device, and back, that nothing waits for."""

from collections.abc import Mapping

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on `device`; where that is a GPU, the copy is queued.

    Only from page-locked memory does it go on without the processor, so a tensor in other memory is put there first.
    """
    if tensor.device == device or device.type == "cpu":
        return tensor.to(device)
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def begin_copy(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU; of what lies on a GPU, it has the numbers after `wait_for_copies` only."""
    return tensor.detach().to("cpu", non_blocking=tensor.is_cuda, copy=True)


def wait_for_copies(device: torch.device) -> None:
    """Wait until all copies from a device that were begun are complete."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def copies_on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU; a GPU is waited for once, and not for each."""
    copies = {name: begin_copy(tensor) for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in tensors.values()}:
        wait_for_copies(device)
    return copies
