"""One batch through the model: predictions, and the losses of the tasks that have a label in it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mtlrun.datasets import Batch
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task, part_losses, split_labelled, task_losses, task_performances


class Forward:
    """What a forward pass gave.

    Args:
        model: in training mode.
        tasks: {name: task}, in the order of the weighting's K tasks.
        batch: as the loader gives it, on the CPU.
        device: the model's.
        num_parts: into how many parts of the batch the losses are split as well.
    """

    def __init__(
        self, model: MultiTaskModel, tasks: Mapping[str, Task], batch: Batch, device: torch.device, num_parts: int = 1
    ) -> None:
        self._model, self._tasks = model, tasks
        self._targets, self._labelled = split_labelled(tasks, batch[1], device)
        self._inputs = batch[0].to(device, non_blocking=True)
        self._predictions, self.representation = model.predict(self._inputs)
        #: {task: loss}; a task without a label in the batch, or in a part of it, is left out.
        self.losses = task_losses(tasks, self._predictions, self._targets, self._labelled)
        #: The losses [K] of each part, if there are several.
        self.parts: list[list[Tensor]] = []
        if num_parts > 1:
            parts = part_losses(tasks, self._predictions, self._targets, self._labelled, num_parts)
            self.losses = {name: loss for name, loss in self.losses.items() if name in parts[0]}
            self.parts = [list(part.values()) for part in parts]

    @property
    def active(self) -> list[str]:
        """The tasks that have a loss."""
        return list(self.losses)

    def positions(self) -> slice | Tensor:
        """Return where the active tasks stand among the K, as an index for tensors of length K."""
        if len(self.losses) == len(self._tasks):
            return slice(None)
        names = list(self._tasks)
        return torch.tensor([names.index(name) for name in self.losses])

    def values(self) -> Tensor:
        """Return the losses of the active tasks, without graph."""
        return torch.stack([loss.detach() for loss in self.losses.values()])

    def performances(self) -> Tensor:
        """Return how well the active tasks do on the batch; see `Task.performance`."""
        return task_performances(self._tasks, self.active, self._predictions, self._targets, self._labelled)

    def regulariser(self) -> Tensor | None:
        """Return the sum of the model's regularisers, None if it has none."""
        terms = self._model.regularisers()
        return torch.stack(list(terms.values())).sum() if terms else None

    @torch.no_grad()
    def values_now(self) -> Tensor:
        """Return the losses of the active tasks under the weights that the model has by now."""
        predictions, _ = self._model.predict(self._inputs)
        losses = task_losses(self._tasks, predictions, self._targets, self._labelled)
        return torch.stack([losses[name] for name in self.losses])
