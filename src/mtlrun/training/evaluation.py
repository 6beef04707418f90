"""Evaluation of a split: its metrics, pooled over all labeled samples, and what the heads put out for each sample."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from mtlrun.datasets import Loader
from mtlrun.datasets.batches.copying import wait_for_copies
from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch, SourceBatch
from mtlrun.training.feed import Feed
from mtlrun.training.forward import run_model
from mtlrun.training.outputs import SplitOutputs
from mtlrun.training.progress import Progress


@torch.inference_mode()
def evaluate(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    loader: Loader,
    device: torch.device,
    after_batch: Callable[[], None] = lambda: None,
    on_targets: Callable[[str, Tensor], None] | None = None,
    outputs: SplitOutputs | None = None,
) -> dict[str, dict[str, float]]:
    """Return {task: {metric: value}}; leaves the model in evaluation mode.

    Args:
        model, tasks: on `device`.
        loader: of the split.
        device: where batches are loaded to.
        after_batch: called after each batch; an exception that it raises ends the evaluation.
        on_targets: called with each task of a batch that has labels, and its targets.
        outputs: of the same tasks and split; what the heads put out is added.
    """
    meters = {name: task.meter().to(device) for name, task in tasks.items()}
    for samples, predictions in predict_batches(model, tasks, loader, device, after_batch, outputs):
        for name in samples.active:
            meters[name].update(samples.pick(name, predictions[name]), samples.targets[name])
            if on_targets is not None:
                on_targets(name, samples.targets[name])
    return {name: meter.compute() for name, meter in meters.items()}


@torch.inference_mode()
def gather(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    loader: Loader,
    device: torch.device,
    after_batch: Callable[[], None],
    outputs: SplitOutputs,
) -> None:
    """Add what the heads put out for a split to `outputs`, without metrics; arguments as for `evaluate`."""
    for _ in predict_batches(model, tasks, loader, device, after_batch, outputs):
        pass


def predict_batches(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    loader: Loader,
    device: torch.device,
    after_batch: Callable[[], None],
    outputs: SplitOutputs | None,
) -> Iterator[tuple[SourceBatch, Mapping[str, Tensor]]]:
    """Yield the samples of a split, batch by batch, with the model's predictions."""
    model.eval()
    # Of a progress that nobody reads: these batches are not those of the training.
    feed = Feed(device, lambda loaded: LabeledBatch.load(tasks, loaded, device), Progress())
    batches = feed.pairs((loaded, None) for loaded in loader.batches())
    for (batch, _), positions in zip(batches, loader.positions(), strict=True):
        for samples, indices in zip(batch.source_batches, positions, strict=True):
            also = () if outputs is None else outputs.of_interest(samples.source)
            predictions = run_model(model, samples, also).predictions
            feed.fetch_ahead()
            if outputs is not None:
                outputs.add(indices, samples, predictions)
            yield samples, predictions
        after_batch()
    wait_for_copies(device)  # of the outputs
