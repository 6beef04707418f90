"""ensemble(): the test metrics of several finished runs together, by the tasks' own meters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mtlrun.datasets import Loader
from mtlrun.deployment.combined.combining import Combine, mean, same_labels, vote
from mtlrun.deployment.combined.made_runs import finished, made_record
from mtlrun.deployment.combined.members import Member, check_splits, check_tasks, listed
from mtlrun.deployment.combined.stacking import fit_stack
from mtlrun.errors import ConfigError, DataError
from mtlrun.records.folder import hold, start_anew
from mtlrun.records.record import Record, TaskMetrics
from mtlrun.runs.predictions import keep_predictions
from mtlrun.runs.recording import record_intervals
from mtlrun.runs.restore import restore
from mtlrun.tasks import AveragesPredictions, Task
from mtlrun.training.evaluation import gather, predict_batches
from mtlrun.training.outputs import SplitOutputs, TaskOutputs
from mtlrun.training.parts import Parts

Method = Literal["average", "vote", "stack", "bagging"]
_SPLITS = ("val", "test")
_FITTED = (
    "fitted to the validation samples, by which the checkpoints of the runs were selected as well, so that metrics on "
    "validation are too good; nothing was fitted to test"
)


@dataclass
class _Ensemble:
    """What the members predict.

    Args:
        first: the parts of the first one.
        tasks: those of each: the scales of their predictions may differ.
        outputs: {split: what the heads of each member put out}.
        with_maps: the parts of each, if there are tasks with maps; else only one member is in memory at a time.
    """

    first: Parts
    tasks: list[Mapping[str, Task]] = field(default_factory=list)
    outputs: dict[str, list[SplitOutputs]] = field(default_factory=lambda: {split: [] for split in _SPLITS})
    with_maps: list[Parts] = field(default_factory=list)


def ensemble(members: Sequence[Member], method: Method, folder: Path, *, device: str = "auto") -> Record:
    """Return the record of an ensemble, which is made unless it is finished already.

    Nothing is written before all predictions are there.

    Args:
        members: runs on the same splits, with the same tasks.
        method: `average` of probabilities, or of numbers in their unit; `vote` by the majority of predicted classes;
            `stack`, a small model of them that is fitted to validation; `bagging`, the average over runs that each drew
            their training rows.
        folder: of the result.
        device: as `runtime.device`.

    Raises:
        DataError: the runs differ in their data or tasks, or the data are not what they were.
        ConfigError: predictions of a task cannot be combined in this way.
        CheckpointError: the weights of a run cannot be read.
    """
    record = finished(folder, "ensemble", method, members)
    if record is not None:
        return record
    check_tasks(members)
    check_splits(members)
    if method == "bagging":
        _check_bagged(members)
    found = _gather(members, method, device)
    combined = {split: SplitOutputs(found.first.tasks, found.first.loaders[split]) for split in _SPLITS}
    metrics: dict[str, TaskMetrics] = {split: {} for split in _SPLITS}
    settings: dict[str, Any] = {}
    notes: list[str] = []
    for name, task in found.first.tasks.items():
        if task.dense:
            metrics = {split: metrics[split] | {name: {}} for split in _SPLITS}  # in the order of the tasks
            continue
        by_split = {split: _align(name, found, split) for split in _SPLITS}
        combine = _choose(method, name, task, by_split["val"], settings, notes)
        for split, (outputs, averages) in by_split.items():
            if outputs is not None:
                outputs = replace(outputs, predictions=_from_average(task, combine(averages)).cpu())
                combined[split].put(name, outputs)
            metrics[split][name] = _evaluate(task, outputs, found.first, found.first.loaders[split].batch_size)
    for split in _SPLITS:
        metrics[split] |= _evaluate_maps(found, split, method)
    record = made_record("ensemble", method, members, found.first, settings=settings)
    record.notes = notes
    record.val, record.test = metrics["val"], metrics["test"]
    with hold(folder):
        start_anew(folder)
        keep_predictions(found.first, combined, folder)
        record_intervals(record, found.first, combined["test"])
        record.write(folder)
    return record


def _gather(members: Sequence[Member], method: Method, device: str) -> _Ensemble:
    found: _Ensemble | None = None
    for member in members:
        parts = restore(member.folder, device=device).parts
        _check_method(method, parts.tasks)
        found = found or _Ensemble(parts)
        found.tasks.append(parts.tasks)
        for split in _SPLITS:
            found.outputs[split].append(_outputs_of(parts, split))
        if any(task.dense for task in parts.tasks.values()):
            found.with_maps.append(parts)
    assert found is not None
    return found


def _check_bagged(members: Sequence[Member]) -> None:
    """Raise DataError unless each member drew training rows of its own."""
    others = [member.name for member in members if not member.record.config["trainer"].get("bootstrap_rows")]
    if others:
        raise DataError(
            f"--method bagging: {listed(others)} did not draw training rows; train with trainer.bootstrap_rows=true, "
            "as -m study=bagging does, or use --method average"
        )
    seeds = [member.record.config["seed"] for member in members]
    if len(set(seeds)) < len(seeds):
        raise DataError("--method bagging: runs with one seed have drawn the same training rows; give one run per seed")


def _check_method(method: Method, tasks: Mapping[str, Task]) -> None:
    for name, task in tasks.items():
        kind = type(task).__name__
        if not isinstance(task, AveragesPredictions):
            raise ConfigError(f"task {name}: what {kind} predicts has no average over models, so there is no ensemble")
        if method == "vote" and task.distribution_dim is None:
            raise ConfigError(
                f"--method vote: task {name} ({kind}) predicts numbers, not classes; use average or stack"
            )
        if method == "stack" and task.dense:
            raise ConfigError(
                f"--method stack: task {name} ({kind}) predicts at each pixel, which is too much to fit to; use average"
            )


def _outputs_of(parts: Parts, split: str) -> SplitOutputs:
    """Return what the heads put out for a split, of all tasks but those with maps."""
    outputs = SplitOutputs(parts.tasks, parts.loaders[split])
    if outputs.tasks:
        gather(parts.model, outputs.tasks, parts.loaders[split], parts.device, lambda: None, outputs)
    return outputs


def _align(name: str, found: _Ensemble, split: str) -> tuple[TaskOutputs | None, list[Tensor]]:
    """Return the first member's outputs for a task, and the averages of all members; None if there are no labels.

    Raises:
        DataError: the members have other samples or labels.
    """
    outputs = [of_member.of_task(name) for of_member in found.outputs[split]]
    present = [each for each in outputs if each is not None]
    if not present:
        return None, []
    first = present[0]
    for other in present:
        equal = len(present) == len(outputs) and torch.equal(first.indices, other.indices)
        if not (equal and torch.equal(first.labeled, other.labeled) and same_labels(first.targets, other.targets)):
            raise DataError(f"task {name}: the runs have not the same labels on the {split} split")
    return first, [
        _to_average(tasks[name], each.predictions, found.first.device)
        for tasks, each in zip(found.tasks, present, strict=True)
    ]


def _choose(
    method: Method,
    name: str,
    task: Task,
    val: tuple[TaskOutputs | None, list[Tensor]],
    settings: dict[str, Any],
    notes: list[str],
) -> Combine:
    """Return how averages are combined; for a stack, which is fitted, settings and notes are added to.

    Args:
        method: of the ensemble.
        name, task: what is predicted.
        val: what `_align` returned for validation.
        settings: {task: how it was fitted}.
        notes: sentences.
    """
    if method == "vote":
        assert isinstance(task, AveragesPredictions)
        assert task.distribution_dim is not None
        return partial(vote, dim=task.distribution_dim)
    outputs, averages = val
    if method != "stack" or outputs is None:
        return mean
    assert isinstance(task, AveragesPredictions)
    labeled = outputs.labeled.to(averages[0].device)
    stack = fit_stack(name, task, [average[labeled] for average in averages], task.observed(outputs.targets))
    settings[name] = {"samples": int(labeled.sum()), "outputs": stack.settings}
    notes += stack.notes if notes else [_FITTED, *stack.notes]
    return stack.combine


@torch.inference_mode()
def _to_average(task: Task, prediction: Tensor, device: torch.device) -> Tensor:
    assert isinstance(task, AveragesPredictions)
    return task.to_average(prediction.to(device))


@torch.inference_mode()
def _from_average(task: Task, average: Tensor) -> Tensor:
    assert isinstance(task, AveragesPredictions)
    return task.from_average(average)


@torch.inference_mode()
def _evaluate(task: Task, outputs: TaskOutputs | None, parts: Parts, batch_size: int) -> dict[str, float]:
    """Return the metrics of a task, by its meter, in batches as a run's."""
    meter = task.meter().to(parts.device)
    if outputs is not None:
        for prediction, target in zip(
            outputs.labeled_predictions.split(batch_size), outputs.targets.split(batch_size), strict=True
        ):
            meter.update(prediction.to(parts.device), target.to(parts.device))
    return meter.compute()


def _evaluate_maps(found: _Ensemble, split: str, method: Method) -> dict[str, dict[str, float]]:
    """Return the metrics of the tasks with maps, whose predictions are combined batch by batch."""
    dense = [name for name, task in found.first.tasks.items() if task.dense]
    if not dense:
        return {}
    combine = {name: _choose(method, name, found.first.tasks[name], (None, []), {}, []) for name in dense}
    meters = {name: found.first.tasks[name].meter().to(found.first.device) for name in dense}
    passes = [
        predict_batches(
            parts.model,
            {name: parts.tasks[name] for name in dense},
            _aligned(parts, found.first, split),
            parts.device,
            lambda: None,
            None,
        )
        for parts in found.with_maps
    ]
    with torch.inference_mode():
        for batches in zip(*passes, strict=True):
            samples, _ = batches[0]
            for name in samples.active:
                if any(not same_labels(samples.targets[name], other.targets[name]) for other, _ in batches):
                    raise DataError(f"task {name}: the runs have not the same labels on the {split} split")
                averages = [
                    _to_average(parts.tasks[name], of_member.pick(name, predictions[name]), parts.device)
                    for parts, (of_member, predictions) in zip(found.with_maps, batches, strict=True)
                ]
                task = found.first.tasks[name]
                meters[name].update(_from_average(task, combine[name](averages)), samples.targets[name])
    return {name: meter.compute() for name, meter in meters.items()}


def _aligned(parts: Parts, first: Parts, split: str) -> Loader:
    """Return a loader of a member's split with the batches of the first member's."""
    loader, wanted = parts.loaders[split], first.loaders[split]
    if loader.batch_size == wanted.batch_size:
        return loader
    if parts.settings.limit_batches is not None or first.settings.limit_batches is not None:
        raise DataError(
            "the runs differ in trainer.eval_batch_size, and so in the samples that trainer.limit_batches leaves"
        )
    return Loader(loader.split, wanted.batch_size, shuffle=False, per_source=loader.per_source)
