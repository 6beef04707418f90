"""compute_baselines(): the results of simple predictors on the test split of a run."""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from mtlrun.config.settings import BaselineChoice
from mtlrun.datasets import SPLITS, TensorSplit
from mtlrun.errors import MtlrunError
from mtlrun.tasks import ConstantPredictor, GeneralizedLinear, Task
from mtlrun.training.baselines.cache import Cache, cache_key
from mtlrun.training.baselines.cost import MOST_SECONDS, estimate_seconds
from mtlrun.training.baselines.inputs import Encoded, encode
from mtlrun.training.baselines.predictors import Examples, fit
from mtlrun.training.parts import Parts

logger = logging.getLogger(__name__)

METHODS = ("linear", "boosting")
_WORTH_A_LINE = 2.0  # seconds
_CHUNK = 4096  # predictions that are evaluated at a time


@dataclass
class Baselines:
    """What simple predictors get on the test split.

    Args:
        metrics: {predictor: {task: {metric: value}}}; predictors are `constant`, `linear` and `boosting`.
        settings: {predictor: {task: {"penalty" or "iterations": of each model, None for a constant}}}.
        notes: on what has no baseline, and why.
        fitted, cached: how many models of tasks were fitted, and the results of how many were read.
        seconds: how long all took.
    """

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    settings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fitted: int = 0
    cached: int = 0
    seconds: float = 0.0

    def add(self, method: str, task: str, result: Mapping[str, Any]) -> None:
        """Add the result of a fitted predictor: metrics and settings."""
        self.metrics.setdefault(method, {})[task] = result["metrics"]
        self.settings.setdefault(method, {})[task] = result["settings"]


@dataclass(frozen=True)
class TaskData:
    """A task, and its labeled samples in the splits of a run.

    Args:
        name: of the task.
        task: on the CPU.
        parts: of the run.
    """

    name: str
    task: Task
    parts: Parts

    def labeled(self, split: str) -> Tensor:
        """Return the positions of the labeled samples of a split: of training all, of others those that the run uses.

        Training samples of weight 0 count as unlabeled.
        """
        loader = self.parts.loaders[split]
        assert loader.split.targets is not None
        mask = self.task.labeled(loader.split.targets[self.name])
        used = None if split == "train" else loader.used()
        weights = self.all_weights() if split == "train" else None
        if weights is not None:
            mask = mask & (weights > 0)
        return mask.nonzero().squeeze(1) if used is None else used[mask[used]]

    def targets(self, split: str) -> Tensor:
        """Return the targets of the labeled samples."""
        targets = self.parts.loaders[split].split.targets
        assert targets is not None
        return targets[self.name][self.labeled(split)]

    def all_weights(self) -> Tensor | None:
        """Return the weights of all training samples for this task."""
        weights = self.parts.loaders["train"].split.sample_weights
        return weights.get(self.name) if isinstance(weights, Mapping) else weights

    def weights(self) -> Tensor | None:
        """Return the weights of the labeled training samples, float64, with the mean 1; None if all count the same."""
        weights = self.all_weights()
        if weights is None:
            return None
        chosen = weights[self.labeled("train")].double()
        return chosen / chosen.mean()

    def examples(self, split: str, inputs: Encoded) -> Examples:
        """Return the labeled samples, with the weights that they have in training."""
        assert isinstance(self.task, GeneralizedLinear)
        rows, weights = self.labeled(split), self.weights() if split == "train" else None
        observations = self.task.observations(self.targets(split)).numpy()
        weight_array = None if weights is None else weights.numpy()
        return Examples(inputs.select(split, rows.numpy()), observations, weight_array, inputs.categories)

    def evaluate(self, predict: Callable[[slice], Tensor]) -> dict[str, float]:
        """Return the metrics on test of what `predict` returns for parts of its labeled samples."""
        meter, target = self.task.meter(), self.targets("test")
        for start in range(0, len(target), _CHUNK):
            part = slice(start, start + _CHUNK)
            meter.update(predict(part), target[part])
        return meter.compute()


def compute_baselines(
    parts: Parts, nodes: Mapping[str, Mapping[str, Any]], choice: BaselineChoice, folder: Path
) -> Baselines:
    """Return the baselines of the tasks: a constant, and for inputs that are vectors a linear model and boosting.

    All are fitted to the whole training split, and evaluated by the tasks' metrics on the test samples that a run uses.
    Dense tasks have none.

    Args:
        parts: of the run.
        nodes: {task: its node in the config}.
        choice: `trainer.baselines`.
        folder: of the cache.
    """
    start, found = time.monotonic(), Baselines()
    splits = [loader.split for name, loader in parts.loaders.items() if name != "meta"]
    if not choice or any(split.targets is None for split in splits):
        return found
    with torch.inference_mode():
        # On the CPU, so that a result does not depend on the device of the run that computes it.
        data = [
            TaskData(name, copy.deepcopy(task).cpu(), parts)
            for name, task in parts.tasks.items()
            if not (task.dense or task.boxes)
        ]
        data = [of_task for of_task in data if len(of_task.labeled("train")) and len(of_task.labeled("test"))]
        for of_task in data:
            metrics = constant_metrics(of_task)
            if metrics is not None:
                found.metrics.setdefault("constant", {})[of_task.name] = metrics
        if _have_vectors(parts):
            _add_fitted(found, data, nodes, choice, folder)
    found.seconds = time.monotonic() - start
    return found


def constant_metrics(data: TaskData) -> dict[str, float] | None:
    """Return what the best constant of the training split gets on test; None if the task has none.

    The zero of the skills is another constant: the best one of the very split that is evaluated.
    """
    task, targets, weights = data.task, data.targets("train"), data.weights()
    if not isinstance(task, ConstantPredictor):
        return None
    if weights is None:
        sums = task.target_sums(targets)
    else:
        ordered, order = weights.sort(stable=True)
        different, counts = ordered.unique_consecutive(return_counts=True)
        groups = zip(different, targets[order].split(counts.tolist()), strict=True)
        sums = torch.stack([weight * task.target_sums(group) for weight, group in groups]).sum(dim=0)
    tested = data.targets("test")
    return data.evaluate(lambda part: task.constant_prediction(sums, tested[part]))


def _have_vectors(parts: Parts) -> bool:
    """Return True if there are vectors to fit to, and a validation split to choose by."""
    splits = [loader.split for name, loader in parts.loaders.items() if name != "meta"]
    return (
        parts.dataset.protocol == "standard"
        and len(splits[0]) > 1  # else it stands for functions to be minimized
        and all(
            isinstance(split, TensorSplit)
            and split.holds_inputs
            and split.inputs.dim() == 2
            and split.inputs.is_floating_point()
            for split in splits
        )
    )


def _add_fitted(
    found: Baselines, data: list[TaskData], nodes: Mapping[str, Mapping[str, Any]], choice: BaselineChoice, folder: Path
) -> None:
    """Add the results of the linear model and of boosting, from the cache or fitted."""
    for of_task in data:
        why = _cannot_be_fitted(of_task)
        if why is not None:
            found.notes.append(f"task {of_task.name} has no baseline but a constant, since {why}")
    data = [of_task for of_task in data if _cannot_be_fitted(of_task) is None]
    caches = {of_task.name: _cache_of(of_task, nodes, folder) for of_task in data}
    known = {of_task.name: caches[of_task.name].read(of_task.task.directions().keys()) for of_task in data}
    for method in METHODS:
        missing = [of_task for of_task in data if method not in known[of_task.name]]
        estimate = sum(_estimate(method, of_task) for of_task in missing)
        if choice == "auto" and estimate > MOST_SECONDS:
            tasks = ", ".join(of_task.name for of_task in missing)
            found.notes.append(
                f"no baseline {method} of {tasks}: it would take about {estimate:.0f} s; trainer.baselines=true has it"
            )
            missing = []
        elif estimate > _WORTH_A_LINE:
            logger.info("fitting baseline %s, about %.0f s", method, estimate)
        inputs = _inputs(method, missing[0].parts) if missing else Encoded({})
        for of_task in missing:
            try:
                known[of_task.name][method] = _fit_and_evaluate(method, of_task, inputs)
            except MtlrunError:
                raise
            except Exception as error:  # a run does not fail by its baseline
                found.notes.append(f"no baseline {method} of {of_task.name}: {type(error).__name__}: {error}")
                continue
            found.fitted += 1
            caches[of_task.name].write(known[of_task.name])
        for of_task in data:
            if method in known[of_task.name]:
                found.add(method, of_task.name, known[of_task.name][method])
                found.cached += of_task not in missing


def _cannot_be_fitted(data: TaskData) -> str | None:
    """Return why scikit-learn's models cannot predict a task; None if they can."""
    task, kind = data.task, type(data.task).__name__
    if not isinstance(task, GeneralizedLinear):
        return f"{kind} is no GeneralizedLinear"
    observations = task.observations(data.targets("train")[:1])
    size = task.output_size if task.family == "categorical" else observations.shape[1]
    if size != task.output_size:
        return f"{kind} has {size} observations of a sample, and its head predicts {task.output_size} numbers"
    return None


def _cache_of(data: TaskData, nodes: Mapping[str, Mapping[str, Any]], folder: Path) -> Cache:
    sizes = data.parts.task_sizes.get(data.name, {})
    return Cache(folder, cache_key(data.name, nodes[data.name], sizes, data.parts.splits, data.parts.dataset.columns))


def _estimate(method: str, data: TaskData) -> float:
    assert isinstance(data.task, GeneralizedLinear)
    (num_features,) = data.parts.dataset.input_shape
    return estimate_seconds(method, data.task.family, len(data.labeled("train")), num_features, data.task.output_size)


def _inputs(method: str, parts: Parts) -> Encoded:
    tensors: dict[str, Tensor] = {}
    for name in SPLITS:
        split = parts.loaders[name].split
        assert isinstance(split, TensorSplit)
        tensors[name] = split.inputs
    return encode(method, tensors, parts.dataset.columns)


def _fit_and_evaluate(method: str, data: TaskData, inputs: Encoded) -> dict[str, dict[str, Any]]:
    """Return metrics and settings."""
    assert isinstance(data.task, GeneralizedLinear)
    # Threads of scikit-learn wait busily, so that more of them than idle cores make it slower by a factor of ten and
    # more. BLAS adds up in another order with another number of threads.
    with threadpool_limits(limits=data.parts.runtime.num_threads or 1), threadpool_limits(limits=1, user_api="blas"):
        train, val = (data.examples(name, inputs) for name in ("train", "val"))
        fitted = fit(method, data.task.family, data.task.output_size, train, val)
        natural = torch.from_numpy(fitted.predict(inputs.select("test", data.labeled("test").numpy())))
    return {"metrics": data.evaluate(lambda part: natural[part]), "settings": fitted.settings}
