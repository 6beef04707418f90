"""From a resolved config to everything that a run is made of; problems are found here, before anything is on disk."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mtlrun.config.instantiate import build
from mtlrun.config.schema import GROUPS, check_root
from mtlrun.config.settings import Runtime, Settings
from mtlrun.config.suggest import suggest
from mtlrun.datasets import SPLITS, Loader, MultiTaskDataset
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel, SharedRepresentationModel, SourceStatistics
from mtlrun.records.folder import check_writable
from mtlrun.setup.compatibility import check_apart, check_tasks, check_weighting, try_batch
from mtlrun.setup.environment import choose_device, keep_solvers_on_one_thread, set_seed
from mtlrun.setup.loaders import fit_tasks, make_loaders, own_statistics
from mtlrun.setup.model_size import Match, count_macs, match_width
from mtlrun.setup.split_summary import SplitSummary, summarize
from mtlrun.setup.warm_start import start_from
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.last_mean import LastMean, check_unselected
from mtlrun.training.optim import Group, Schedule, check_partition, make_param_groups
from mtlrun.training.selection import MEAN_RELATIVE_GAIN, Choice, Selection, check_rule
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import JacobianWeighting, LossWeighting, Weighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import LooksAhead, RotatesRepresentation, UsesLabelFractions

logger = logging.getLogger(__name__)


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
    macs: int
    match: Match | None
    splits: dict[str, SplitSummary]

    @property
    def directions(self) -> dict[str, dict[str, str]]:
        """Which way each metric is better, {task: {metric: "max" or "min"}}."""
        return {name: dict(task.directions()) for name, task in self.tasks.items()}

    @property
    def main_metrics(self) -> dict[str, str]:
        """The metric by which each task is judged."""
        return {name: task.main_metric for name, task in self.tasks.items()}

    def selections(self) -> Sequence[Choice]:
        """Return what is selected together: all tasks, or each one where they are independent."""
        if self.dataset.averaged_evaluations is not None:
            return [LastMean(list(self.tasks), self.dataset.averaged_evaluations)]
        independent = self.model.independent_tasks and self.settings.monitor == MEAN_RELATIVE_GAIN
        sets = [[name] for name in self.tasks] if independent else [list(self.tasks)]
        return [
            Selection(
                tasks,
                self.settings.monitor,
                self.directions,
                self.main_metrics,
                self.settings.patience,
                self.settings.min_delta,
            )
            for tasks in sets
        ]


class _Problems(list[str]):
    """Collects the problems of one step after the other, so that they can be listed together."""

    def attempt(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return what `make` returns, or None if it raises ConfigError, whose problems are noted."""
        try:
            return make(*arguments, **options)
        except ConfigError as error:
            self.extend(error.problems)
            return None

    def drop_inherited_rates(self, nodes: Mapping[str, Any]) -> None:
        """Forget problems of tasks' learning rates that they have from `optimizer.lr`, whose own problem is noted."""
        lr = nodes["optimizer"].get("lr")
        tasks = {name: node for name, node in nodes.get("tasks", {}).items() if isinstance(node, Mapping)}
        inherited = [f"tasks.{name}.lr " for name, node in tasks.items() if node.get("lr") == lr]
        if any(problem.startswith("optimizer.lr ") for problem in self):
            self[:] = [problem for problem in self if not problem.startswith(tuple(inherited))]

    def stop_if_any(self) -> None:
        """Raise ConfigError if anything was noted."""
        if self:
            raise ConfigError(list(dict.fromkeys(self)))


def prepare(config: Mapping[str, Any]) -> Parts:
    """Build and check everything that a run needs; nothing is written.

    Args:
        config: as `mtlrun.config.compose.resolve` returns it.

    Raises:
        ConfigError: with all problems that can be told apart.
        DataError: the data cannot be used.
    """
    problems = _Problems(check_root(config))
    nodes = {group: config[group] for group in (*GROUPS, "tasks") if config.get(group) is not None}

    def attempt(group: str, **given: Any) -> Any:
        return problems.attempt(build, nodes[group], group, **given) if group in nodes else None

    runtime: Runtime | None = problems.attempt(_build_plain, Runtime, nodes.get("runtime"), "runtime")
    settings: Settings | None = problems.attempt(_build_plain, Settings, nodes.get("trainer"), "trainer")
    device = torch.device("cpu")
    keep_solvers_on_one_thread()
    if runtime is not None:
        problems.attempt(check_writable, Path(runtime.root))
        device = problems.attempt(choose_device, runtime.device) or device
        if runtime.num_threads is not None:
            torch.set_num_threads(runtime.num_threads)
    tasks = _build_tasks(nodes.get("tasks", {}), problems)
    dataset: MultiTaskDataset | None = attempt("dataset")
    weighting: Weighting | None = attempt("weighting")
    schedule: Schedule | None = attempt("scheduler")
    if "optimizer" in nodes:
        problems.attempt(_check_optimizer, nodes["optimizer"])
        problems.drop_inherited_rates(nodes)

    # The weights that the model starts from depend on the seed alone, not on the dataset or the weighting.
    seed = config["seed"] if isinstance(config.get("seed"), int) else 0
    set_seed(max(seed, 0), deterministic=settings is not None and settings.deterministic)
    model: MultiTaskModel | None = None
    match: Match | None = None
    if dataset is not None:
        problems += check_tasks(tasks, dataset, str(config["names"]["dataset"]))
        backbone = attempt("backbone", partial=True, input_shape=dataset.input_shape)
        if tasks and backbone is not None and config.get("match_parameters") is not None:
            match = problems.attempt(_match, nodes, config["match_parameters"], tasks, dataset.input_shape)
            if match is not None:
                nodes["backbone"] = {**nodes["backbone"], "width": match.width}
                backbone = attempt("backbone", partial=True, input_shape=dataset.input_shape)
        if tasks and backbone is not None:
            model = attempt("model", tasks=tasks, backbone=backbone)
        if model is not None and model.init_from is not None:
            legacy = dataset.averaged_evaluations is not None
            problems.attempt(start_from, model, model.init_from, legacy=legacy)
    if weighting is not None:
        problems += check_weighting(weighting, model, tasks, config)
        problems.attempt(_setup, weighting, len(tasks), seed)
    if settings is not None and tasks:
        directions = {name: dict(task.directions()) for name, task in tasks.items()}
        problems.attempt(check_rule, settings.monitor, directions)
    if settings is not None and dataset is not None:
        problems += check_unselected(dataset.averaged_evaluations, settings)
    problems.stop_if_any()
    assert runtime is not None
    assert settings is not None
    assert dataset is not None
    assert weighting is not None
    assert schedule is not None
    assert model is not None

    look_ahead = bool(weighting.capable_of(LooksAhead))
    loaders = make_loaders(
        dataset, tasks, settings, runtime, device, seed, look_ahead=look_ahead, independent=model.independent_tasks
    )
    # Where evaluations are averaged, "val" is the test split under another name.
    told = [name for name in SPLITS if name != "val" or dataset.averaged_evaluations is None]
    splits = {str(name): summarize(loaders[name].split, tasks) for name in told}
    _tell_sizes(weighting, splits["train"])
    fit_tasks(tasks, loaders["train"], runtime.num_workers)
    if loaders["train"].apart:
        check_apart(weighting, str(config["names"]["weighting"]))
    if own_statistics(dataset):
        _separate_statistics(model, list(loaders["train"].sources))
    try_batch(model, tasks, loaders["train"], settings.micro_batches)
    cost = _cost(model, LabeledBatch.load(tasks, loaders["train"].first(1), torch.device("cpu")))
    model.to(device)
    for task in tasks.values():
        task.to(device)  # a loss may have weights of its own
    if isinstance(weighting, LossWeighting | JacobianWeighting):
        weighting.to(device)
    elif isinstance(weighting, TaskGradientWeighting) and weighting.losses is not None:
        weighting.losses.to(device)  # while the state of what sees only the Gram matrix stays where its solver is
    for method in weighting.capable_of(RotatesRepresentation):
        if isinstance(model, SharedRepresentationModel):
            method.attach_rotations(model.add_rotations())
    optimizer = _make_optimizer(nodes["optimizer"], model, tasks, weighting)
    return Parts(
        dataset=dataset,
        tasks=tasks,
        model=model,
        weighting=weighting,
        optimizer=optimizer,
        schedule=schedule,
        loaders=loaders,
        settings=settings,
        runtime=runtime,
        device=device,
        macs=cost,
        match=match,
        splits=splits,
    )


def _build_plain(target: type, node: Mapping[str, Any] | None, key: str) -> Any:
    """Build a group that has one class only, which its YAML therefore does not name."""
    return None if node is None else build({"_target_": f"{target.__module__}.{target.__name__}", **node}, key)


def _match(
    nodes: Mapping[str, Any], reference: Mapping[str, Any], tasks: Mapping[str, Task], input_shape: tuple[int, ...]
) -> Match:
    """Find the width of the backbone at which this run's model has as many parameters as the one to be matched."""
    node = nodes["backbone"]
    if "width" not in node:
        raise ConfigError(f"match_parameters needs a backbone with a width, and {node.get('_target_')} has none")

    def model(what: Mapping[str, Any], key: str, width: float) -> MultiTaskModel:
        backbone = build({**node, "width": width}, "backbone", partial=True, input_shape=input_shape)
        found: MultiTaskModel = build(what, key, tasks=tasks, backbone=backbone)
        return found

    width = float(node["width"])
    return match_width(
        lambda: model(reference, "match_parameters", width), lambda width: model(nodes["model"], "model", width), width
    )


def _setup(weighting: Weighting, num_tasks: int, seed: int) -> None:
    try:
        weighting.setup(num_tasks, seed)
    except ValueError as error:
        raise ConfigError(f"weighting.{error}") from error


def _build_tasks(nodes: Mapping[str, Any], problems: _Problems) -> dict[str, Task]:
    """Build the tasks; one that cannot be built is left out, its problems are noted."""
    tasks: dict[str, Task] = {}
    for name, node in nodes.items():
        # A name becomes a part of tags, of paths in the config and of names of parameters.
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name in ("shared", "weighting") or hasattr(nn.ModuleDict, name):
            problems.append(f"tasks.{name}: not a name that a task can have; use letters, digits and _, as in depth_2")
            continue
        if isinstance(node, Mapping) and "_target_" not in node:
            known = [other for other, options in nodes.items() if "_target_" in options]
            problems.append(f"tasks.{name}: unknown task; {suggest(name, known, 'the tasks are')}")
            continue
        task = problems.attempt(build, node, f"tasks.{name}")
        if task is not None:
            tasks[name] = task
    return tasks


def _check_optimizer(node: Mapping[str, Any]) -> None:
    """Check the optimizer's arguments before there are parameters to give it."""
    lr = node.get("lr")
    if isinstance(lr, int | float) and not lr > 0:
        raise ConfigError(f"optimizer.lr must be > 0, found {lr}")
    if lr is None:
        raise ConfigError("optimizer.lr is missing; it is the learning rate of all that is shared")
    # Run once over a parameter that nobody trains, so that the constructor's own checks speak now.
    build(node, "optimizer", params=[nn.Parameter(torch.zeros(1))])


def _tell_sizes(weighting: Weighting, split: SplitSummary) -> None:
    """Tell the methods that ask for it how large the tasks are."""
    for method in weighting.capable_of(UsesLabelFractions):
        if method.needs_label_fractions:
            if not split.labeled:
                raise ConfigError(
                    "tasks.<t>.weight=size needs a dataset that tells its labels without loading the samples; give "
                    "the weights as numbers"
                )
            method.set_label_fractions([count / split.samples for count in split.labeled.values()])


def _separate_statistics(model: MultiTaskModel, sources: Sequence[str]) -> None:
    """Give the model running statistics for each source."""
    if model.independent_tasks:
        return  # a network of one task alone sees the sources of that task alone
    try:
        model.source_statistics = SourceStatistics(model, sources)
    except ValueError as error:
        raise ConfigError(f"dataset.sampling.batch_norm=per_source: {error}; use shared") from error


def _cost(model: MultiTaskModel, batch: LabeledBatch) -> int:
    """Return the MACs of one sample, of one of each source where these go through the model apart."""
    return sum(
        count_macs(model, stream.inputs, None if stream.source is None else stream.active)
        for stream in batch.source_batches
    )


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
    _check_names(groups, tasks)
    for name, method in zip(("weighting", "weighting.losses"), weighting.methods(), strict=False):
        learned = list(method.parameters(recurse=False))
        groups.append(Group(name, learned, method.lr or shared_lr, weight_decay=False))
    optimizer: Optimizer = build(node, "optimizer", params=make_param_groups(groups))
    return optimizer


def _check_names(groups: Sequence[Group], tasks: Mapping[str, Task]) -> None:
    """Refuse a task that has the name of a parameter group: their learning rates could not be told apart."""
    names = [group.name for group in groups]
    for name in tasks:
        if names.count(name) > 1:
            raise ConfigError(f"tasks.{name}: the model has a parameter group of that name; call the task otherwise")


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
