"""What a training loop gives for a batch, and whether it is what the weighting needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from mtlrun.config.suggest import suggest
from mtlrun.errors import DivergedError
from mtlrun.weightings import PartsWeighting, Weighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import ObservesPerformance
from mtlrun.weightings.precision import promoted

# How far rounding may take a loss below its bound.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Given:
    """The arguments of `LossBalancer.backward`, which explains them."""

    losses: Mapping[str, Tensor]
    shared: Sequence[nn.Parameter] | None
    representation: Tensor | None
    last_layer: Sequence[nn.Parameter]
    regularizer: Tensor | None
    parts: Sequence[Mapping[str, Tensor]]
    performances: Mapping[str, float] | None
    last: bool

    def problems_of_losses(self, tasks: Sequence[str]) -> list[str]:
        """Return what is wrong with the losses themselves."""
        problems = [
            f"losses: {name} is none of the tasks; {suggest(name, tasks, 'they are')}"
            for name in self.losses
            if name not in tasks
        ]
        return problems + [
            f"losses: {name} must be a scalar tensor that requires gradients, found {_describe(loss)}"
            for name, loss in self.losses.items()
            if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad
        ]

    def problems_of_method(self, method: Weighting, name: str, *, accumulates: bool) -> list[str]:
        """Return what the method needs and is not given, or is given and does not need.

        Args:
            method: the weighting.
            name: what messages call it.
            accumulates: whether the batch is one of the micro-batches of an optimizer step.
        """
        problems = []
        grad_wrt = method.grad_wrt if isinstance(method, TaskGradientWeighting) else "shared"
        num_parts = method.num_parts if isinstance(method, PartsWeighting) else 0
        observes = bool(method.capable_of(ObservesPerformance))
        if accumulates and (num_parts or observes or grad_wrt != "shared"):
            wrt = "" if grad_wrt == "shared" else f" with grad_wrt={grad_wrt}"
            return [f"last: weighting={name}{wrt} needs the whole batch of a step at once, in one process"]
        if grad_wrt != "shared" and self.representation is None:
            problems.append(f"representation: weighting={name} with grad_wrt={grad_wrt} needs this tensor")
        if grad_wrt == "last_layer" and not self.last_layer:
            problems.append(f"last_layer: weighting={name} with grad_wrt=last_layer needs its parameters")
        if len(self.parts) != num_parts or any(part.keys() != self.losses.keys() for part in self.parts):
            needed = f"the losses of {num_parts} parts of the batch, of the same tasks" if num_parts else "none"
            problems.append(f"parts: weighting={name} needs {needed}, found {len(self.parts)}")
        performances = self.performances or {}
        if observes and performances.keys() != self.losses.keys():
            problems.append(f"performances: weighting={name} needs a number in [0, 1] for each task with a loss")
        elif observes and not all(0 <= value <= 1 for value in performances.values()):
            problems.append(f"performances: must be in [0, 1], found {dict(performances)}")
        elif performances and not observes:
            problems.append(f"performances: weighting={name} looks at none; leave them out")
        return problems


def check_values(losses: Mapping[str, Tensor], lowest: Mapping[str, float], name: str, step: int) -> None:
    """Raise DivergedError for a loss that no update can be made of; all are read from the device at once.

    Args:
        losses: {task: loss}.
        lowest: {task: what the method allows}.
        name: of the weighting.
        step: counted from 1.
    """
    values = torch.stack([promoted(loss.detach()) for loss in losses.values()]).tolist()
    for task, value in zip(losses, values, strict=True):
        if not isfinite(value):
            raise diverged(f"the loss of task {task} is not finite (NaN or infinite)", step, task)
        if value < lowest[task] - _ROUNDING:
            raise diverged(
                f"the loss of task {task} is {value:.4g}, and weighting={name} works with losses of {lowest[task]:g} "
                "or more",
                step,
                task,
            )


def diverged(what: str, step: int, task: str) -> DivergedError:
    """Return the error of a step that no update can be made for."""
    return DivergedError(f"step {step}: {what}; no update was made", step, task)


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"one of shape {tuple(value.shape)}" if value.dim() else "one that does not"
