"""Several processes that train one network together, each on a part of the batch: their task gradients are averaged."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from mtlrun.errors import ConfigError
from mtlrun.library.accumulation import Accumulation
from mtlrun.setup.model_size import count_parameters


def num_processes() -> int:
    """Return how many processes train together, by `torch.distributed`; 1 where it is not in use."""
    in_use = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if in_use else 1


class Processes:
    """A group of processes with equal networks, which make the same update of the mean of their task gradients.

    Args:
        group: of `torch.distributed`.
    """

    def __init__(self, group: "distributed.ProcessGroup") -> None:
        self._group = group
        self._leaves: dict[str, list[Tensor]] = {}  # {task: what its loss reached in the last step that had it}

    def average(self, accumulated: Accumulation, tasks: Sequence[str]) -> None:
        """Replace losses and task gradients by their means over the processes that have a loss of the task.

        Args:
            accumulated: of this process.
            tasks: the names of all tasks, in an order that all processes have in common.

        Raises:
            ConfigError: in all processes: they reach different parameters by the loss of a task.
        """
        for name, gradients in accumulated.gradients.items():
            self._leaves[name] = list(gradients)
        device = next((leaf.device for leaves in self._leaves.values() for leaf in leaves), torch.device("cpu"))
        present = torch.tensor([float(name in accumulated.losses) for name in tasks], device=device)
        distributed.all_reduce(present, group=self._group)
        sizes = [count_parameters(self._leaves.get(name, ())) for name in tasks]
        largest = torch.tensor([*sizes, *(-size for size in sizes)], device=device)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=self._group)
        counts, bounds = present.tolist(), largest.tolist()
        for place, name in enumerate(tasks):
            if counts[place] and bounds[place] != -bounds[len(tasks) + place]:
                raise ConfigError(
                    f"process_group: the loss of {name} reaches other parameters in some processes than in others, or "
                    "has not been there in some so far; the first batch of each process needs all tasks"
                )
        for name, count in zip(tasks, counts, strict=True):
            if count:
                self._average_task(accumulated, name, count)

    def _average_task(self, accumulated: Accumulation, name: str, count: float) -> None:
        """Average loss and gradient of a task that `count` of the processes have; the others' are zeros."""
        leaves = self._leaves[name]
        here = accumulated.gradients.get(name, {})
        loss = accumulated.losses.get(name, torch.zeros((), device=leaves[0].device))
        parts = [loss.reshape(1), *(here.get(leaf, torch.zeros_like(leaf)).reshape(-1) for leaf in leaves)]
        flat = torch.cat(parts)
        distributed.all_reduce(flat, group=self._group)
        flat /= count
        accumulated.losses[name] = flat[0]
        pieces = flat[1:].split([leaf.numel() for leaf in leaves])
        accumulated.gradients[name] = {
            leaf: piece.view_as(leaf).to(leaf.dtype) for leaf, piece in zip(leaves, pieces, strict=True)
        }
