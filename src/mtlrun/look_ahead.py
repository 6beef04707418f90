"""What a weighting is given that tries out a step before it is made: the model's losses at whatever its weights are."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from mtlrun.datasets import Batch
from mtlrun.tasks import Task, split_labelled, task_losses
from mtlrun.weightings import Weighting


class Trial(AbstractContextManager["Trial"]):
    """The losses of two batches under the model's present weights; buffers and random numbers are left as they were.

    Each call of `losses` sees the same random numbers, and so the same dropout masks. The weighting puts the parameters
    back itself.

    Args:
        model: in training mode.
        lr: learning rate of the step that is about to be made.
        first, second: compute the losses [K] of this step's batch and of another one.
    """

    def __init__(self, model: nn.Module, lr: float, first: Callable[[], Tensor], second: Callable[[], Tensor]) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.lr = lr
        self._model = model
        self._first, self._second = first, second

    def losses(self, *, second: bool = False) -> Tensor:
        """Return the losses [K], with their graph."""
        devices = [device for device in {p.device for p in self.parameters} if device.type == "cuda"]
        with torch.random.fork_rng(devices=devices):
            return self._second() if second else self._first()

    def __enter__(self) -> Self:
        self._buffers = [buffer.clone() for buffer in self._model.buffers()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with torch.no_grad():
            for buffer, before in zip(self._model.buffers(), self._buffers, strict=True):
                buffer.copy_(before)


def try_step(
    weighting: Weighting,
    model: nn.Module,
    tasks: Mapping[str, Task],
    batches: Sequence[Batch],
    lr: float,
    device: torch.device,
) -> None:
    """Let `weighting` look ahead on two batches, this step's and another one; not where a task has no label in one."""
    prepared = [(inputs.to(device), *split_labelled(tasks, targets, device)) for inputs, targets in batches]
    if any(rows is not None and len(rows) == 0 for _, _, labelled in prepared for rows in labelled.values()):
        return

    def losses(number: int) -> Tensor:
        inputs, targets, labelled = prepared[number]
        return torch.stack(list(task_losses(tasks, model(inputs), targets, labelled).values()))

    with Trial(model, lr, partial(losses, 0), partial(losses, 1)) as trial:
        weighting.active = slice(None)
        weighting.look_ahead(trial)
