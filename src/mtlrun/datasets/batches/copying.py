"""Copies to a device that nothing waits for."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on `device`; where that is a GPU, the copy is queued.

    Only from page-locked memory does it go on without the processor, so a tensor in other memory is put there first.
    """
    if tensor.device == device or device.type == "cpu":
        return tensor.to(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
