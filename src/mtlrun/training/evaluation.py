"""Evaluation of a split: its metrics, pooled over all labeled samples."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mtlrun.datasets import Loader
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import run_model


@torch.inference_mode()
def evaluate(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    loader: Loader,
    device: torch.device,
    after_batch: Callable[[], None] = lambda: None,
    on_targets: Callable[[str, Tensor], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Return {task: {metric: value}}; leaves the model in evaluation mode.

    Args:
        model, tasks: on `device`.
        loader: of the split.
        device: where batches are loaded to.
        after_batch: called after each batch; an exception that it raises ends the evaluation.
        on_targets: called with each task of a batch that has labels, and its targets.
    """
    model.eval()
    meters = {name: task.meter().to(device) for name, task in tasks.items()}
    for loaded in loader.batches():
        for samples in LabeledBatch.load(tasks, loaded, device).source_batches:
            predictions = run_model(model, samples).predictions
            for name in samples.active:
                meters[name].update(samples.pick(name, predictions[name]), samples.targets[name])
                if on_targets is not None:
                    on_targets(name, samples.targets[name])
        after_batch()
    return {name: meter.compute() for name, meter in meters.items()}
