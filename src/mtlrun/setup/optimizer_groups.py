"""Parameter groups: the trainable parameters, with the learning rates of their tasks or of all that is shared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mtlrun.config.bounds import Positive
from mtlrun.config.instantiate import build
from mtlrun.config.values import find_problems
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task


@dataclass(frozen=True)
class Group:
    """A parameter group: parameters with one learning rate.

    Args:
        name: unique; `lr/<name>` in the log.
        parameters: the trainable ones.
        lr: learning rate before the schedule.
    """

    name: str
    parameters: list[nn.Parameter]
    lr: float


def make_param_groups(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Return the groups as PyTorch optimizers take them; empty ones are left out."""
    return [
        {"params": group.parameters, "lr": group.lr, "initial_lr": group.lr, "name": group.name}
        for group in groups
        if group.parameters
    ]


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


def make_optimizer(node: Mapping[str, Any], model: MultiTaskModel, tasks: Mapping[str, Task]) -> Optimizer:
    """Build the optimizer over the parameters of the model; what a weighting learns has another.

    Raises:
        ConfigError: a parameter of the model is not in exactly one group, or a task has the name of another group.
    """
    shared_lr = float(node["lr"])
    adaptive = not isinstance(_make_dummy(node), torch.optim.SGD)
    groups = []
    for group in model.parameter_groups():
        rate_of = group.task or group.lr_task
        lr = shared_lr if rate_of is None else tasks[rate_of].lr
        trainable = [parameter for parameter in group.parameters if parameter.requires_grad]
        scale = group.adaptive_lr_scale if adaptive and group.adaptive_lr_scale is not None else group.lr_scale
        groups.append(Group(group.name, trainable, lr * scale))
    check_partition(model, groups)
    _check_names(groups, tasks)
    optimizer: Optimizer = build(node, "optimizer", Optimizer, params=make_param_groups(groups))
    return optimizer


def check_task_rates(node: Mapping[str, Any], model: MultiTaskModel, tasks: Mapping[str, Task]) -> None:
    """Raise ConfigError if a task's learning rate differs from `optimizer.lr`, and no parameter trains at it."""
    shared_lr = node.get("lr")
    used = {
        group.task or group.lr_task
        for group in model.parameter_groups()
        if any(parameter.requires_grad for parameter in group.parameters)
    }
    problems = [
        f"tasks.{name}.lr must be that of the shared parameters, optimizer.lr={shared_lr:g}, found {task.lr:g}: no "
        f"parameter of {type(model).__name__} would train at it, since none belongs to this task; leave it out"
        for name, task in tasks.items()
        if name not in used and isinstance(shared_lr, int | float) and task.lr != shared_lr
    ]
    if problems:
        raise ConfigError(problems)


def check_optimizer(node: Mapping[str, Any]) -> None:
    """Check the optimizer's arguments before there are parameters to give it."""
    if node.get("lr") is None:
        raise ConfigError("optimizer.lr is missing; it is the learning rate of the shared parameters")
    problems = find_problems(node["lr"], Positive, "optimizer.lr")
    try:
        _make_dummy(node)  # so that the checks of its constructor are made now
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(dict.fromkeys(problems))


def _make_dummy(node: Mapping[str, Any]) -> Optimizer:
    """Build the optimizer over a parameter that is not the model's."""
    optimizer: Optimizer = build(node, "optimizer", Optimizer, params=[nn.Parameter(torch.zeros(1))])
    return optimizer


def _check_names(groups: Sequence[Group], tasks: Mapping[str, Task]) -> None:
    """Refuse a task with the name of another parameter group: the log could not distinguish their learning rates."""
    names = [group.name for group in groups]
    for name in tasks:
        if names.count(name) > 1:
            raise ConfigError(f"tasks.{name}: the model has a parameter group of that name; rename the task")
