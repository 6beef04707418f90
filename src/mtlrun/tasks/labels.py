"""Missing labels: a task is trained and judged on the samples that carry its label, and on no others."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.tasks.base import Task


def split_labelled(
    tasks: Mapping[str, Task], targets: Mapping[str, Tensor], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Return the targets of the labelled samples on `device`, and which samples these are; None stands for all.

    Decided before the copy to the device, so that nothing has to wait for a GPU.
    """
    kept: dict[str, Tensor] = {}
    labelled: dict[str, Tensor | None] = {}
    for name, task in tasks.items():
        target = targets[name]
        mask = task.labelled(target)
        if mask.all():
            labelled[name] = None
        else:
            rows = mask.nonzero().squeeze(1)
            target = target[rows]
            labelled[name] = rows.to(device, non_blocking=True)
        kept[name] = target.to(device, non_blocking=True)
    return kept, labelled


def task_losses(
    tasks: Mapping[str, Task],
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    labelled: Mapping[str, Tensor | None],
) -> dict[str, Tensor]:
    """Return the mean loss over the labelled samples for each task that has one; the others are left out.

    `targets` and `labelled` are what `split_labelled` returned.
    """
    found = {}
    for name, task in tasks.items():
        rows = labelled[name]
        if rows is None:
            found[name] = task.loss(predictions[name], targets[name])
        elif len(rows):
            found[name] = task.loss(predictions[name][rows], targets[name])
    return found


def task_performances(
    tasks: Mapping[str, Task],
    active: Sequence[str],
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    labelled: Mapping[str, Tensor | None],
) -> Tensor:
    """Return how well each of the `active` tasks does on the batch, [len(active)]; see `Task.performance`."""
    found = []
    for name in active:
        rows = labelled[name]
        prediction = predictions[name].detach()
        value = tasks[name].performance(prediction if rows is None else prediction[rows], targets[name])
        if value is None:
            raise ConfigError(f"tasks.{name}: {type(tasks[name]).__name__} gives no performance to weigh by")
        found.append(value)
    return torch.stack(found)
