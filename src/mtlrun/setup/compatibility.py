"""Compatibility of dataset, tasks, model and weighting, checked before the run."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlrun.config.settings import Settings
from mtlrun.config.suggest import suggest
from mtlrun.datasets import InputColumn, Loader, MultiTaskDataset, Split
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import MultiTaskModel, SharedRepresentationModel
from mtlrun.tasks import MeasuresPerformance, Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, untouched
from mtlrun.training.selection import MEAN_SKILL
from mtlrun.weightings import Equal, GradientWeighting, JacobianWeighting, PartsWeighting, Weighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import (
    LooksAhead,
    ObservesPerformance,
    RotatesRepresentation,
    UsesLabelFractions,
    UsesTaskWeights,
)


def check_weighting(
    weighting: Weighting, model: MultiTaskModel | None, tasks: Mapping[str, Task], config: Mapping[str, Any]
) -> list[str]:
    """Return the problems of training `tasks` with `model` under `weighting`.

    Args:
        weighting: before `setup`.
        model: None if it could not be built.
        tasks: those that could be built.
        config: the resolved config, for the names in the messages.
    """
    name = f"weighting={config['names']['weighting']}"
    problems = []
    if 0 < len(tasks) == len(config["tasks"]) and len(tasks) < weighting.minimum_tasks:
        problems.append(
            f"{name} combines the gradients of {weighting.minimum_tasks} tasks or more, found {len(tasks)} "
            f"({', '.join(tasks)}); use weighting=equal"
        )
    problems += _check_task_weights(weighting, name, tasks)
    problems += _check_negative_losses(weighting, name, tasks)
    if weighting.capable_of(ObservesPerformance):
        problems += [
            f"tasks.{task}: {name} needs a performance in [0, 1], and {type(options).__name__} gives none; "
            "use another weighting"
            for task, options in tasks.items()
            if not isinstance(options, MeasuresPerformance)
        ]
    batch_size = config.get("trainer", {}).get("batch_size")
    if isinstance(weighting, PartsWeighting) and isinstance(batch_size, int) and 1 <= batch_size < weighting.num_parts:
        problems.append(
            f"trainer.batch_size={batch_size}: {name} splits each batch into {weighting.num_parts} parts; use "
            f"trainer.batch_size={weighting.num_parts} or more"
        )
    if config.get("trainer", {}).get("micro_batches", 1) != 1:
        problems += _check_micro_batches(weighting, name, config["trainer"].get("two_pass") is True)
    if model is not None:
        problems += _check_model(weighting, name, model, f"model={config['names']['model']}")
    return problems


def check_affinity(
    settings: Settings, model: MultiTaskModel | None, tasks: Mapping[str, Task], config: Mapping[str, Any]
) -> list[str]:
    """Return the reasons why the lookahead affinities of the tasks cannot be measured, if they are asked for.

    Args:
        settings: the group `trainer`.
        model: None if it could not be built.
        tasks: those that could be built.
        config: the resolved config, for the names in the messages.
    """
    if settings.log_affinity_every is None:
        return []
    key = f"trainer.log_affinity_every={settings.log_affinity_every}"
    off = "use trainer.log_affinity_every=null"
    problems = [
        f"tasks.{task}: {key} compares losses by their ratio, and {type(options).__name__} does not declare that its "
        f"loss is never negative (nonnegative_loss); {off}"
        for task, options in tasks.items()
        if not options.nonnegative_loss
    ]
    if settings.micro_batches != 1:
        problems.append(f"{key} needs the whole batch of a step at once; use trainer.micro_batches=1")
    if len(config["tasks"]) < 2:
        problems.append(f"{key} compares 2 tasks or more, found {len(config['tasks'])}; {off}")
    elif model is not None and not model.shared_parameters():
        problems.append(
            f"{key} makes steps of the parameters that tasks share, and model={config['names']['model']} has none; "
            f"{off}"
        )
    return problems


def _check_task_weights(weighting: Weighting, name: str, tasks: Mapping[str, Task]) -> list[str]:
    """Return a problem for each `tasks.<t>.weight` that no method of the run takes, or that would count twice."""
    readers = [method for method in weighting.capable_of(UsesTaskWeights) if method.reads_task_weights]
    kinds_without_size = [type(method) for method in readers if not isinstance(method, UsesLabelFractions)]
    problems = []
    for task, options in tasks.items():
        key = f"tasks.{task}.weight={options.weight}"
        if options.weight == 1.0:
            continue
        if not readers:
            problems.append(f"{key} has no effect with {name}; use weighting=static")
        elif options.weight == "size" and kinds_without_size:
            kind = kinds_without_size[0]
            taker = name if isinstance(weighting, kind) else f"weighting.losses ({kind.__name__})"
            problems.append(f"{key} is for weighting=static, and {taker} takes a number > 0")
        elif len(readers) > 1:
            problems.append(f"{key} would count twice, in {name} and weighting.losses; use weighting.preferences=null")
    return problems


def _check_negative_losses(weighting: Weighting, name: str, tasks: Mapping[str, Task]) -> list[str]:
    """Return a problem for each task whose loss may fall below what the weighting works with."""
    why = hint = ""
    for method, key in zip(weighting.methods(), ("weighting", "weighting.losses"), strict=False):
        if method.needs_positive_losses:
            why = name if method is weighting else f"{key} ({type(method).__name__})"
            hint = f"; give a lower bound as {key}.min_losses" if hasattr(method, "min_losses") else ""
            break
        if method.loss_transform == "log":
            why = f"{key}.loss_transform=log"
            break
    return [
        f"tasks.{task}: {why} needs losses that are never negative, and {type(options).__name__} does not declare "
        f"that its loss is (nonnegative_loss){hint}"
        for (task, options), lowest in zip(tasks.items(), weighting.lowest_losses(len(tasks)), strict=False)
        if lowest >= 0 and not options.nonnegative_loss
    ]


def _check_micro_batches(weighting: Weighting, name: str, two_pass: bool) -> list[str]:
    """Return the reason why this weighting cannot make a step of micro-batches, if there is one."""
    if isinstance(weighting, PartsWeighting) or weighting.capable_of(LooksAhead):
        return [f"{name} needs the whole batch of a step at once; use trainer.micro_batches=1"]
    if isinstance(weighting, TaskGradientWeighting) and weighting.grad_wrt != "shared" and not two_pass:
        also = "trainer.two_pass=true, " if isinstance(weighting, GradientWeighting) else ""
        return [
            f"weighting.grad_wrt={weighting.grad_wrt} needs the whole batch of a step at once; use {also}"
            "weighting.grad_wrt=shared or trainer.micro_batches=1"
        ]
    return []


def _check_model(weighting: Weighting, name: str, model: MultiTaskModel, model_name: str) -> list[str]:
    """Return the first reason why the weighting does not work with the model, if there is one."""
    if model.independent_tasks and not (isinstance(weighting, Equal) and weighting.plain):
        return [
            f"{name}: {model_name} trains each task as if it were alone, so there is nothing to weigh; "
            "use weighting=equal, with its defaults"
        ]
    if not isinstance(weighting, GradientWeighting | JacobianWeighting):
        return []
    if not model.shared_parameters():
        return [
            f"{name} combines the tasks' gradients with respect to the shared parameters, and {model_name} has none; "
            "use a weighting of losses (equal, static, uncertainty, dwa) or a model that shares parameters (see: "
            "mtlrun list models)"
        ]
    if isinstance(weighting, RotatesRepresentation) and not (
        isinstance(model, SharedRepresentationModel)
        and type(model).add_rotations is not SharedRepresentationModel.add_rotations
    ):
        return [
            f"{name} rotates the shared representation in front of each task's head, and {model_name} has no place for "
            "that; use model=hard"
        ]
    if weighting.grad_wrt != "shared" and not isinstance(model, SharedRepresentationModel):
        return [
            f"weighting.grad_wrt={weighting.grad_wrt} needs a model with one shared representation, and "
            f"{model_name} has none; use weighting.grad_wrt=shared"
        ]
    if weighting.grad_wrt == "last_layer" and isinstance(model, SharedRepresentationModel) and not model.last_layer():
        return [
            f"weighting.grad_wrt=last_layer needs a shared layer with weights that are trained, and {model_name} has "
            "none; use weighting.grad_wrt=shared"
        ]
    return []


def check_per_source(weighting: Weighting, name: str, settings: Settings) -> None:
    """Raise ConfigError if a weighting or key cannot be used where each source goes through the model on its own."""
    if settings.stream_rows:
        raise ConfigError(
            "trainer.stream_rows=true goes back through the stages of one pass, and here each source goes through the "
            "model on its own (dataset.sampling.batch_norm=per_source, or inputs of several shapes); use "
            "trainer.stream_rows=false"
        )
    source = weighting.grad_wrt if isinstance(weighting, TaskGradientWeighting) else "shared"
    if isinstance(weighting, RotatesRepresentation) or source != "shared":
        what = f"weighting={name}" if isinstance(weighting, RotatesRepresentation) else f"weighting.grad_wrt={source}"
        raise ConfigError(
            f"{what} compares the tasks by one representation, and here each source goes through the model on its own "
            "(dataset.sampling.batch_norm=per_source, or inputs of several shapes); use another weighting, or "
            "weighting.grad_wrt=shared"
        )


def check_tasks(tasks: Mapping[str, Task], dataset: MultiTaskDataset, name: str) -> list[str]:
    """Return a problem for each task without labels in the dataset, or with a positive class that it cannot choose."""
    problems = [
        f"tasks.{task}: dataset={name} has no labels for it; {suggest(task, dataset.task_names, 'it has')}"
        for task in tasks
        if task not in dataset.task_names
    ]
    for task, built in tasks.items():
        positive = getattr(built, "positive", None)
        if positive is not None and not dataset.chooses_positive:
            problems.append(
                f"tasks.{task}.positive={positive}: the labels of dataset={name} are 0 and 1, of which 1 is "
                "positive; leave it null. It names a label of a table of your own"
            )
    return problems


def check_protocol(dataset: MultiTaskDataset, settings: Settings) -> list[str]:
    """Return a problem for each setting that, under the legacy protocol, selects by the test split or has no effect."""
    if dataset.protocol == "standard":
        return []
    because = "dataset.protocol=legacy evaluates the test split during training"
    problems = []
    if dataset.averaged_evaluations < 1:
        problems.append(f"dataset: averaged_evaluations must be >= 1, found {dataset.averaged_evaluations}")
    if settings.patience is not None:
        problems.append(
            f"trainer.patience={settings.patience}: {because}, which may not decide when training ends; use "
            "trainer.patience=null or dataset.protocol=standard"
        )
    if settings.monitor != MEAN_SKILL:
        problems.append(
            f"trainer.monitor={settings.monitor}: {because} and selects nothing by it, the result is a mean over the "
            f"last evaluations; leave trainer.monitor={MEAN_SKILL} or use dataset.protocol=standard"
        )
    if settings.min_delta != 0:
        problems.append(
            f"trainer.min_delta={settings.min_delta} has no effect with dataset.protocol=legacy, which selects "
            "nothing; leave trainer.min_delta=0 or use dataset.protocol=standard"
        )
    return problems


def check_categories(columns: Sequence[InputColumn] | None, inputs: Tensor, name: str) -> None:
    """Raise DataError if an index of a category in a split is none of 0 to num_categories - 1.

    Args:
        columns: of the inputs.
        inputs: of all samples, [num_samples, num_columns].
        name: of the split.
    """
    for place, column in enumerate(columns or ()):
        if column.kind != "category":
            continue
        indices = inputs[:, place]
        wrong = ((indices < 0) | (indices >= column.num_categories) | (indices != indices.round())).nonzero()
        if len(wrong):
            sample, last = int(wrong[0]), column.num_categories - 1
            raise DataError(
                f"dataset: {name} split, sample {sample}: {column.name} must be the index of a category, from 0 to "
                f"{last}, found {indices[sample].item():g}"
            )


def check_targets(split: Split, name: str, tasks: Mapping[str, Task]) -> None:
    """Check all targets of a split that holds them in memory."""
    targets = split.targets
    if targets is None:
        return
    for task_name, task in tasks.items():
        try:
            task.check_targets(targets[task_name])
        except ValueError as error:
            raise DataError(f"dataset: {name} split, task {task_name}: {error}") from error
        if name != "test" and not task.labeled(targets[task_name]).any():
            raise DataError(f"dataset: {name} split, task {task_name}: no sample has a label")


def try_batch(
    model: MultiTaskModel, tasks: Mapping[str, Task], loader: Loader, num_micro_batches: int, device: torch.device
) -> None:
    """Run the smallest batch or micro-batch of the training through the model, without changing its state.

    Args:
        model, tasks: on `device`.
        loader: of the training split.
        num_micro_batches: into which a batch is divided.
        device: of the run.

    Raises:
        ConfigError: data, backbone and heads do not fit together, or BatchNorm gets a single sample.
    """
    whole = LabeledBatch.load(tasks, loader.smallest_batch(), device)
    *_, batch = whole.split(num_micro_batches)
    model.train()
    try:
        with untouched(model), torch.no_grad():
            BatchPass(model, batch).regularizer(batch.num_samples)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (ValueError, RuntimeError, IndexError, KeyError) as error:
        message = str(error).splitlines()[0]
        if "more than 1 value per channel" in message:
            smallest = min(len(samples) for samples in batch.source_batches)
            what = "batch" if num_micro_batches == 1 else "micro-batch"
            if loader.per_source:
                what += " of a source"
            raise ConfigError(
                f"trainer.batch_size={loader.batch_size}: the smallest {what} has {smallest} sample "
                f"({loader.num_samples} samples in all), and BatchNorm needs 2 or more in each; "
                f"use another batch size, or a backbone without BatchNorm"
            ) from error
        raise ConfigError(
            f"dataset, backbone, model and tasks do not fit together: {type(error).__name__}: {message} "
            f"(inputs of shape {', '.join(str(_shape(samples.inputs)) for samples in batch.source_batches)})"
        ) from error


def find_last_layer(model: MultiTaskModel, weighting: Weighting, batch: LabeledBatch) -> None:
    """Let the model see in which order its layers are applied, if the weighting compares gradients at the last one."""
    at_last_layer = isinstance(weighting, TaskGradientWeighting) and weighting.grad_wrt == "last_layer"
    if not (at_last_layer and isinstance(model, SharedRepresentationModel)):
        return
    was_training = model.training
    model.eval()  # nothing is dropped at random
    with untouched(model), torch.enable_grad():
        model.find_last_layer(batch.source_batches[0].inputs)
    model.train(was_training)


def _shape(inputs: Any) -> Any:
    return tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
