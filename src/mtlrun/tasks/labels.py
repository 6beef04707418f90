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


def pick(prediction: Tensor, rows: Tensor | None) -> Tensor:
    """Return the predictions of the labelled samples, as `split_labelled` tells them; None stands for all."""
    return prediction if rows is None else prediction[rows]


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
        if len(targets[name]):
            found[name] = task.loss(pick(predictions[name], labelled[name]), targets[name])
    return found


def part_losses(
    tasks: Mapping[str, Task],
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    labelled: Mapping[str, Tensor | None],
    num_parts: int,
) -> list[dict[str, Tensor]]:
    """Return `task_losses` of each of `num_parts` parts of the batch, for the tasks with a label in every part.

    Part p is made of every num_parts-th sample from the p-th on.
    """
    found = []
    for part in range(num_parts):
        part_targets, part_rows = {}, {}
        for name in tasks:
            rows = labelled[name]
            if rows is None:
                rows = torch.arange(part, len(targets[name]), num_parts, device=targets[name].device)
                part_targets[name] = targets[name][rows]
            else:
                mine = rows % num_parts == part
                rows, part_targets[name] = rows[mine], targets[name][mine]
            part_rows[name] = rows
        found.append(task_losses(tasks, predictions, part_targets, part_rows))
    everywhere = [name for name in tasks if all(name in losses for losses in found)]
    return [{name: losses[name] for name in everywhere} for losses in found]


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
        value = tasks[name].performance(pick(predictions[name].detach(), labelled[name]), targets[name])
        if value is None:
            raise ConfigError(f"tasks.{name}: {type(tasks[name]).__name__} gives no performance to weigh by")
        found.append(value)
    return torch.stack(found)
