"""From a resolved config to everything that a run is made of; problems are found here, before anything is on disk."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mtlrun.building import build
from mtlrun.compatibility import check_weighting
from mtlrun.datasets import SPLITS, Loader, MultiTaskDataset
from mtlrun.environment import choose_device, set_seed
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import MultiTaskModel
from mtlrun.optim import Group, Schedule, check_partition, make_param_groups
from mtlrun.selection import GAIN, Selection, check_rule
from mtlrun.suggest import suggest
from mtlrun.tasks import Task
from mtlrun.trainer import Settings, Trainer
from mtlrun.weightings import JacobianWeighting, LossWeighting, Weighting


@dataclass(frozen=True)
class Runtime:
    """The group `runtime`: what cannot change a result; what each key means stands in conf/runtime/default.yaml.

    Raises:
        ValueError: a key is out of its bounds.
    """

    root: str = "outputs"
    study: str = "runs"
    device: str = "auto"
    num_workers: int = 0
    num_threads: int | None = None
    checkpoint_minutes: float | None = 10.0
    rerun: bool = False
    quiet: bool = False
    traceback: bool = False

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ValueError(f"num_workers must be >= 0, found {self.num_workers}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be >= 1, or null for PyTorch's choice, found {self.num_threads}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise ValueError(
                f"checkpoint_minutes must be > 0, or null for at each epoch's end only, found {self.checkpoint_minutes}"
            )
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", self.study):
            raise ValueError(f"study must be a folder name, found {self.study!r}")


@dataclass
class Parts:
    """What a run is made of."""

    dataset: MultiTaskDataset
    tasks: dict[str, Task]
    model: MultiTaskModel
    weighting: Weighting
    optimizer: Optimizer
    schedule: Schedule
    loaders: dict[str, Loader]
    settings: Settings
    runtime: Runtime
    device: torch.device

    @property
    def directions(self) -> dict[str, dict[str, str]]:
        """Which way each metric is better, {task: {metric: "max" or "min"}}."""
        return {name: dict(task.directions()) for name, task in self.tasks.items()}

    @property
    def main_metrics(self) -> dict[str, str]:
        """The metric by which each task is judged."""
        return {name: task.main_metric for name, task in self.tasks.items()}

    def selections(self) -> list[Selection]:
        """Return what is selected together: all tasks, or each one where they are independent."""
        independent = self.model.independent_tasks and self.settings.select == GAIN
        sets = [[name] for name in self.tasks] if independent else [list(self.tasks)]
        return [
            Selection(
                tasks,
                self.settings.select,
                self.directions,
                self.main_metrics,
                self.settings.patience,
                self.settings.min_gain,
            )
            for tasks in sets
        ]


class _Problems(list[str]):
    """Collects the problems of one step after the other."""

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            self.extend(error.problems)

    def stop_if_any(self) -> None:
        if self:
            raise ConfigError(self)


def prepare(config: Mapping[str, Any]) -> Parts:
    """Build and check everything that a run needs; nothing is written.

    Args:
        config: as `mtlrun.config.resolve` returns it.

    Raises:
        ConfigError: with all problems that can be told apart.
        DataError: the data cannot be used.
    """
    problems = _Problems()
    runtime, settings, device = Runtime(), Settings(), torch.device("cpu")
    with problems.collect():
        runtime = build({"_target_": "mtlrun.preparation.Runtime", **config["runtime"]}, "runtime")
    with problems.collect():
        settings = build({"_target_": "mtlrun.trainer.Settings", **config["trainer"]}, "trainer")
    with problems.collect():
        device = choose_device(runtime.device)
    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    tasks = _build_tasks(config["tasks"], problems)
    dataset: MultiTaskDataset | None = None
    with problems.collect():
        dataset = build(config["dataset"], "dataset")
        problems += _check_tasks(tasks, dataset, str(config["names"]["dataset"]))
    weighting: Weighting | None = None
    with problems.collect():
        weighting = build(config["weighting"], "weighting")
    schedule: Schedule | None = None
    with problems.collect():
        schedule = build(config["scheduler"], "scheduler")
    with problems.collect():
        _check_optimizer(config["optimizer"])

    set_seed(config["seed"], deterministic=settings.deterministic)
    model: MultiTaskModel | None = None
    if dataset is not None and tasks:
        with problems.collect():
            backbone = build(config["backbone"], "backbone", partial=True, input_shape=dataset.input_shape)
            model = build(config["model"], "model", tasks=tasks, backbone=backbone)
    if weighting is not None:
        problems += check_weighting(weighting, model, tasks, config)
    directions = {name: dict(task.directions()) for name, task in tasks.items()}
    wrong_rule = check_rule(settings.select, directions) if tasks else None
    if wrong_rule:
        problems.append(f"trainer.select {wrong_rule}")
    problems.stop_if_any()
    assert dataset is not None
    assert weighting is not None
    assert schedule is not None
    assert model is not None

    try:
        weighting.setup(len(tasks), config["seed"])
    except ValueError as error:
        raise ConfigError(f"weighting.{error}") from error
    loaders = _make_loaders(dataset, tasks, settings, runtime, device, config["seed"])
    _try_batch(model, tasks, loaders["train"])
    model.to(device)
    if isinstance(weighting, LossWeighting | JacobianWeighting):
        weighting.to(device)  # the state of those that see only the Gram matrix stays where their solver is
    optimizer = _make_optimizer(config["optimizer"], model, tasks, weighting)
    return Parts(dataset, tasks, model, weighting, optimizer, schedule, loaders, settings, runtime, device)


def _build_tasks(nodes: Mapping[str, Any], problems: _Problems) -> dict[str, Task]:
    """Build the tasks; one that cannot be built is left out, its problems are noted."""
    tasks: dict[str, Task] = {}
    if not nodes:
        problems.append("tasks is empty; a run needs at least one task")
    for name, node in nodes.items():
        # A name becomes a part of tags, of paths in the config and of names of parameters.
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name in ("shared", "weighting") or hasattr(nn.ModuleDict, name):
            problems.append(f"tasks.{name}: not a name that a task can have; use letters, digits and _, as in depth_2")
            continue
        if isinstance(node, Mapping) and "_target_" not in node:
            known = [other for other, options in nodes.items() if "_target_" in options]
            problems.append(f"tasks.{name}: unknown task; {suggest(name, known, 'the tasks are')}")
            continue
        with problems.collect():
            tasks[name] = build(node, f"tasks.{name}")
    return tasks


def _check_tasks(tasks: Mapping[str, Task], dataset: MultiTaskDataset, name: str) -> list[str]:
    return [
        f"tasks.{task}: dataset={name} has no labels for it; {suggest(task, dataset.task_names, 'it has')}"
        for task in tasks
        if task not in dataset.task_names
    ]


def _check_optimizer(node: Mapping[str, Any]) -> None:
    """Check the optimizer's arguments before there are parameters to give it."""
    lr = node.get("lr")
    if isinstance(lr, int | float) and not lr > 0:
        raise ConfigError(f"optimizer.lr must be > 0, found {lr}")
    if lr is None:
        raise ConfigError("optimizer.lr is missing; it is the learning rate of all that is shared")
    # Run once over a parameter that nobody trains, so that the constructor's own checks speak now.
    build(node, "optimizer", params=[nn.Parameter(torch.zeros(1))])


def _make_loaders(
    dataset: MultiTaskDataset,
    tasks: Mapping[str, Task],
    settings: Settings,
    runtime: Runtime,
    device: torch.device,
    seed: int,
) -> dict[str, Loader]:
    loaders: dict[str, Loader] = {}
    for name in SPLITS:
        split = dataset.split(name)
        if len(split) == 0:  # type: ignore[arg-type]
            raise DataError(f"dataset: the {name} split is empty")
        loaders[name] = Loader(
            split,
            settings.batch_size if name == "train" else settings.eval_batch_size,
            shuffle=name == "train",
            seed=seed,
            limit_batches=settings.limit_batches,
            num_workers=runtime.num_workers,
            pin_memory=device.type == "cuda",
        )
        _check_targets(split, name, tasks)
    return loaders


def _check_targets(split: Any, name: str, tasks: Mapping[str, Task]) -> None:
    """Check all targets of a split that holds them as tensors."""
    targets = getattr(split, "targets", None)
    if not isinstance(targets, Mapping):
        return
    for task_name, task in tasks.items():
        try:
            task.check_targets(targets[task_name])
        except ValueError as error:
            raise DataError(f"dataset: {name} split, task {task_name}: {error}") from error
        if name != "test" and not task.labelled(targets[task_name]).any():
            raise DataError(f"dataset: {name} split, task {task_name}: no sample has a label")


def _try_batch(model: MultiTaskModel, tasks: Mapping[str, Task], loader: Loader) -> None:
    """Run the smallest batch that training will meet through the model, and leave everything as it was.

    Finds what no signature can tell: that data, backbone and heads do not fit, or that BatchNorm meets one sample.
    """
    inputs, targets = loader.smallest_batch()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            predictions = model(inputs)
            for name, task in tasks.items():
                rows = task.labelled(targets[name])
                if rows.any():
                    task.loss(predictions[name][rows], targets[name][rows])
    except (ValueError, RuntimeError, IndexError, KeyError) as error:
        message = str(error).splitlines()[0]
        if "more than 1 value per channel" in message:
            raise ConfigError(
                f"trainer.batch_size={loader.batch_size}: the smallest batch has {len(inputs)} sample "
                f"({loader.num_samples} samples in all), and BatchNorm needs 2 or more in each; "
                f"use another batch size, or a backbone without BatchNorm"
            ) from error
        raise ConfigError(
            f"dataset, backbone, model and tasks do not fit together: {type(error).__name__}: {message} "
            f"(inputs of shape {_shape(inputs)})"
        ) from error
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _shape(inputs: Any) -> Any:
    return tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__


def _make_optimizer(
    node: Mapping[str, Any], model: MultiTaskModel, tasks: Mapping[str, Task], weighting: Weighting
) -> Optimizer:
    """Build the optimizer over the model's groups and the weighting's own parameters."""
    shared_lr = float(node["lr"])
    groups = []
    for group in model.parameter_groups():
        lr = shared_lr if group.task is None else tasks[group.task].lr
        trainable = [parameter for parameter in group.parameters if parameter.requires_grad]
        groups.append(Group(group.name, trainable, lr * group.lr_scale))
    check_partition(model, groups)
    groups.append(Group("weighting", list(weighting.parameters()), weighting.lr or shared_lr, weight_decay=False))
    optimizer: Optimizer = build(node, "optimizer", params=make_param_groups(groups))
    return optimizer


def make_trainer(parts: Parts, **options: Any) -> Trainer:
    """Return the trainer of these parts; `options` are the rest of Trainer's arguments."""
    return Trainer(
        model=parts.model,
        tasks=parts.tasks,
        weighting=parts.weighting,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        loaders=parts.loaders,
        selections=parts.selections(),
        settings=parts.settings,
        device=parts.device,
        **options,
    )
