"""Parameter groups: the trainable parameters, with the learning rates of their tasks or of all that is shared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlrun.config.bounds import Positive
from mtlrun.config.diagnosis import first_line
from mtlrun.config.instantiate import build
from mtlrun.config.shortening import shorten
from mtlrun.config.values import find_problems
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.setup.memory import check_room_for
from mtlrun.setup.model_size import count_parameters
from mtlrun.tasks import Task

# Arguments that choose among PyTorch's implementations of one optimizer.
_KERNELS = {"fused", "foreach", "capturable", "differentiable"}
_LARGE = 2**28  # bytes of parameters above which it is asked whether they can be trained


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
        ConfigError: a parameter of the model is not in exactly one group, a task has the name of another group, or the
            optimizer cannot take a step with such parameters.
    """
    shared_lr = float(node["lr"])
    adaptive = not isinstance(_make(node, [nn.Parameter(torch.zeros(2, 2))]), torch.optim.SGD)
    groups = []
    for group in model.parameter_groups():
        rate_of = group.task or group.lr_task
        lr = shared_lr if rate_of is None else tasks[rate_of].lr
        trainable = [parameter for parameter in group.parameters if parameter.requires_grad]
        scale = group.adaptive_lr_scale if adaptive and group.adaptive_lr_scale is not None else group.lr_scale
        groups.append(Group(group.name, trainable, lr * scale))
    check_partition(model, groups)
    _check_names(groups, tasks)
    parameters = [parameter for group in groups for parameter in group.parameters]
    _try_step(node, parameters)
    optimizer = _make(_fused(node, parameters), make_param_groups(groups))
    optimizer.register_load_state_dict_pre_hook(_keep_kernels)
    return optimizer


def _fused(node: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> Mapping[str, Any]:
    """Return the node with `fused=True`, which is faster, if the optimizer can be so on the parameters' device.

    Nothing is changed where the config chooses one of PyTorch's implementations itself; nor for SGD with dampening,
    whose fused implementation fails if a task has its first label later than others.
    """
    fused = {**node, "fused": True}
    names = ("Adam", "AdamW", "SGD", "Adagrad")
    if node["_target_"] not in [f"torch.optim.{name}" for name in names] or not _KERNELS.isdisjoint(node):
        return node
    if node.get("dampening"):
        return node
    return node if _failure(fused, _small_like(parameters)) else fused


def _keep_kernels(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Let a state that was saved under another implementation be continued by the optimizer's present one."""
    saved, groups = state["param_groups"], optimizer.param_groups
    if len(saved) != len(groups):
        return state  # which PyTorch refuses
    kept = [{key: group[key] for key in _KERNELS & group.keys()} for group in groups]
    return {**state, "param_groups": [{**each, **own} for each, own in zip(saved, kept, strict=True)]}


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


def check_optimizer(node: Mapping[str, Any], device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
    """Check the optimizer's arguments, and that it can take a step, before there are parameters to give it.

    Args:
        node: of the optimizer.
        device: on which it will work.

    Raises:
        ConfigError: with all problems of the node.
    """
    if node.get("lr") is None:
        raise ConfigError("optimizer.lr is missing; it is the learning rate of the shared parameters")
    problems = find_problems(node["lr"], Positive, "optimizer.lr")
    if node.get("maximize") is True:
        problems.append("optimizer.maximize=true would make the losses larger; leave it out")
    try:
        _try_step(node, [torch.zeros(2, 2, device=device)])
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(dict.fromkeys(problems))


def check_room_for_training(node: Mapping[str, Any], model: MultiTaskModel, device: torch.device) -> None:
    """Check that gradients, and what the optimizer keeps for each parameter, fit into the memory.

    Raises:
        ConfigError, OutOfMemoryError: see `mtlrun.setup.memory.check_room_for`.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = sum(parameter.nbytes for parameter in trainable)
    if size < _LARGE:
        return
    small = nn.Parameter(torch.zeros(2, 2))
    try:
        optimizer = _take_step(node, [small])
    except Exception:
        return  # a problem already
    kept = sum(state.shape == small.shape for state in optimizer.state[small].values() if isinstance(state, Tensor))
    parts = 1 + kept + (device.type != "cpu")  # the parameters are in the memory of the machine already
    check_room_for(
        parts * size,
        f"model: what {count_parameters(trainable):,} parameters are trained with",
        "use a smaller backbone",
        device,
    )


def _try_step(node: Mapping[str, Any], parameters: Iterable[Tensor]) -> None:
    """Have the optimizer take a step with small tensors like these: some arguments are refused only by the step.

    Raises:
        ConfigError: the optimizer cannot be built, or cannot take a step; it names the argument that is the reason.
    """
    small = _small_like(parameters)
    if not small or (failure := _failure(node, small)) is None:
        return
    others = {key: value for key, value in node.items() if key not in ("_target_", "lr")}
    culprits = (key for key in others if _failure({k: v for k, v in node.items() if k != key}, small) is None)
    key = next(culprits, None)
    place = "optimizer" if key is None else f"optimizer.{key}={shorten(others[key])}"
    raise ConfigError(f"{place}: {node['_target_']} cannot train this run: {first_line(failure)}") from failure


def _small_like(parameters: Iterable[Tensor]) -> list[nn.Parameter]:
    """Return small parameters of the same shapes, types and devices."""
    kinds = dict.fromkeys((tuple(min(n, 2) for n in p.shape), p.dtype, p.device) for p in parameters)
    return [nn.Parameter(torch.zeros(shape, dtype=dtype, device=device)) for shape, dtype, device in kinds]


def _failure(node: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> Exception | None:
    """Return what PyTorch raises when the optimizer is built and takes a step; errors of a user's class are raised."""
    try:
        _take_step(node, parameters)
    except (ConfigError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        if not str(node["_target_"]).startswith("torch."):
            raise
        return error
    return None


def _take_step(node: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Build the optimizer and have it take a step, for which no random number of the run is used up."""
    optimizer = _make(node, parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    with torch.random.fork_rng([parameter.device for parameter in parameters[:1] if parameter.is_cuda]):
        optimizer.step()
    return optimizer


def _make(node: Mapping[str, Any], params: Sequence[Any]) -> Optimizer:
    """Build the optimizer over parameters, or groups of them."""
    optimizer: Optimizer = build(node, "optimizer", Optimizer, params=params)
    return optimizer


def _check_names(groups: Sequence[Group], tasks: Mapping[str, Task]) -> None:
    """Refuse a task with the name of another parameter group: the log could not distinguish their learning rates."""
    names = [group.name for group in groups]
    for name in tasks:
        if names.count(name) > 1:
            raise ConfigError(f"tasks.{name}: the model has a parameter group of that name; rename the task")
