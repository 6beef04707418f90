"""Optimizers and learning-rate schedules, over named parameter groups with learning rates of their own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mtlrun.errors import ConfigError


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate.

    Args:
        name: unique; `lr/<name>` in the log.
        parameters: the trainable ones.
        lr: learning rate before the schedule.
        weight_decay: False for parameters that must not be decayed, such as a weighting's.
    """

    name: str
    parameters: list[nn.Parameter]
    lr: float
    weight_decay: bool = True


def make_param_groups(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Return the groups as PyTorch optimizers take them; empty ones are left out."""
    found = []
    for group in groups:
        if group.parameters:
            entry: dict[str, Any] = {
                "params": group.parameters,
                "lr": group.lr,
                "initial_lr": group.lr,
                "name": group.name,
            }
            found.append(entry if group.weight_decay else entry | {"weight_decay": 0.0})
    return found


def check_partition(module: nn.Module, groups: Iterable[Group]) -> None:
    """Raise ConfigError unless every trainable parameter of `module` is in exactly one group."""
    counts: dict[int, int] = {}
    for group in groups:
        for parameter in group.parameters:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for name, parameter in module.named_parameters():
        times = counts.get(id(parameter), 0)
        if parameter.requires_grad and times != 1:
            raise ConfigError(
                f"model: parameter {name} must be in exactly one of the model's parameter groups, found it in {times}"
            )


class Schedule(ABC):
    """The factor on all learning rates as a function of the step: it has no state, so there is none to resume.

    Args:
        warmup_epochs: over how many epochs the factor rises linearly to one, before the schedule proper begins.
    """

    def __init__(self, warmup_epochs: float = 0.0) -> None:
        if not warmup_epochs >= 0:
            raise ValueError(f"warmup_epochs must be >= 0, found {warmup_epochs}")
        self.warmup_epochs = warmup_epochs

    def factor(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """Return the factor for optimizer step number `step`, counted from 0."""
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        passed = step - warmup_steps
        return self.decay(passed / steps_per_epoch, passed / max(total_steps - warmup_steps, 1))

    @abstractmethod
    def decay(self, epochs: float, progress: float) -> float:
        """Return the factor after the warm-up.

        Args:
            epochs: since the end of the warm-up.
            progress: fraction of the steps after the warm-up that have been made.
        """


class Constant(Schedule):
    """The learning rates stay as they are, after a warm-up if there is one."""

    def decay(self, epochs: float, progress: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 to `final_factor`, step by step, over the whole training.

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (ICLR 2017), without restarts.

    Args:
        final_factor: factor at the end, in [0, 1].
        warmup_epochs: see `Schedule`.
    """

    def __init__(self, final_factor: float = 0.0, warmup_epochs: float = 0.0) -> None:
        super().__init__(warmup_epochs)
        if not 0 <= final_factor <= 1:
            raise ValueError(f"final_factor must be in [0, 1], found {final_factor}")
        self.final_factor = final_factor

    def decay(self, epochs: float, progress: float) -> float:
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + cos(pi * min(progress, 1.0)))


class Step(Schedule):
    """Multiply by `gamma` every `step_size` epochs.

    Args:
        step_size: epochs, >= 1.
        gamma: factor, in (0, 1].
        warmup_epochs: see `Schedule`.
    """

    def __init__(self, step_size: int = 10, gamma: float = 0.5, warmup_epochs: float = 0.0) -> None:
        super().__init__(warmup_epochs)
        if step_size < 1:
            raise ValueError(f"step_size must be >= 1, found {step_size}")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], found {gamma}")
        self.step_size = step_size
        self.gamma = gamma

    def decay(self, epochs: float, progress: float) -> float:
        return float(self.gamma ** int(epochs // self.step_size))


class Exponential(Schedule):
    """Multiply by `gamma` after each epoch.

    Args:
        gamma: factor, in (0, 1].
        warmup_epochs: see `Schedule`.
    """

    def __init__(self, gamma: float = 0.95, warmup_epochs: float = 0.0) -> None:
        super().__init__(warmup_epochs)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], found {gamma}")
        self.gamma = gamma

    def decay(self, epochs: float, progress: float) -> float:
        return float(self.gamma ** int(epochs))


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its own base."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
