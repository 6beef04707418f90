"""Constant predictions: what can be achieved on a split without its inputs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mtlrun.datasets import Loader
from mtlrun.tasks import ConstantPredictor, Task


class ConstantPredictions:
    """A constant prediction for each task on a split, and its metrics.

    It takes two passes over the targets: `add` collects sums during an evaluation, `metrics` evaluates. So it takes
    little memory however large maps are, and the same metrics as any other prediction.

    Args:
        tasks: those of them that are no `ConstantPredictor` have their `trivial_values`, if any.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._tasks = tasks
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, target: Tensor) -> None:
        """Add the labeled targets of a batch."""
        task = self._tasks[name]
        if isinstance(task, ConstantPredictor):
            sums = task.target_sums(target)
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    @torch.inference_mode()
    def metrics(
        self, loader: Loader, device: torch.device, after_batch: Callable[[], None] = lambda: None
    ) -> dict[str, dict[str, float]]:
        """Return {task: {metric: value}}; tasks without a constant prediction have the values that they declare.

        Args:
            loader: of the split whose targets were added.
            device: where the tasks are.
            after_batch: called after each batch; an exception that it raises ends the evaluation.
        """
        meters = {name: self._tasks[name].meter().to(device) for name in self._sums}
        for targets in loader.target_batches() if meters else ():
            for name, sums in self._sums.items():
                task = self._tasks[name]
                if name in targets:  # else it is a task of other sources
                    target = targets[name][task.labeled(targets[name])].to(device)
                    if len(target):
                        assert isinstance(task, ConstantPredictor)
                        meters[name].update(task.constant_prediction(sums, target), target)
            after_batch()
        found = {name: meter.compute() for name, meter in meters.items()}
        return {name: found.get(name, {}) | dict(task.trivial_values) for name, task in self._tasks.items()}
