"""The tasks that have a loss in a step, as an index for tensors whose first dimension is that of the K tasks."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mtlrun.weightings.transfer import sent


def task_index(positions: Sequence[int], num_tasks: int) -> slice | Tensor:
    """Return an index of the tasks at these positions among the K, on the CPU; a slice where they are all of them."""
    return slice(None) if len(positions) == num_tasks else _index(tuple(positions), torch.device("cpu"))


def index_on(index: slice | Tensor | Sequence[int], device: torch.device) -> slice | Tensor:
    """Return an index of tasks on a device, to which each one is copied once, without waiting for the device.

    A tensor on a GPU that is indexed by one on the CPU has the index copied, and waits, each time.
    """
    if isinstance(index, slice):
        return index
    if isinstance(index, Tensor):
        if index.device == device:
            return index
        index = index.tolist()
    return _index(tuple(index), device)


def at_positions(values: Tensor, positions: Sequence[int]) -> Tensor:
    """Return the values, of [K], of the tasks at these positions."""
    return values if len(positions) == len(values) else values[index_on(positions, values.device)]


@lru_cache(maxsize=2**12)
def _index(positions: tuple[int, ...], device: torch.device) -> Tensor:
    return sent(torch.tensor(positions, dtype=torch.int64), device)
