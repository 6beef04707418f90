"""Pictures of inputs, labels and predictions, for tasks that draw them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mtlrun.models import MultiTaskModel
from mtlrun.tasks import DrawsPictures, Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.captions import Picture
from mtlrun.training.forward import run_model


@torch.inference_mode()
def draw(model: MultiTaskModel, batch: LabeledBatch) -> dict[str, Picture]:
    """Return {task: picture}: per labeled sample a column of input, label and prediction.

    Tasks that draw no pictures are left out.

    Args:
        model: in evaluation mode.
        batch: of few samples, on the model's device.
    """
    pictures = {}
    for samples in batch.source_batches:
        predictions = run_model(model, samples).predictions
        for name in samples.active:
            task = samples.tasks[name]
            if isinstance(task, DrawsPictures):
                prediction, target = task.picture(samples.pick(name, predictions[name]), samples.targets[name])
                inputs = _photographs(samples.pick(name, samples.inputs), target.shape[-2:])
                from torchvision.utils import make_grid  # slow to import, and most tasks draw nothing

                # On the CPU, where some tasks draw.
                rows = torch.cat([row.cpu() for row in (*inputs, target, prediction)]).float().clamp(0, 1)
                grid = (make_grid(rows, nrow=len(target)) * 255).round().to(torch.uint8)
                pictures[name] = Picture(grid, ["input", "label", "prediction"][-len(inputs) - 2 :], task.legend())
    return pictures


def _photographs(inputs: Tensor, size: tuple[int, ...]) -> list[Tensor]:
    """Return the inputs as one row of images, each scaled to [0, 1]; empty if they are not images of that size."""
    if inputs.dim() != 4 or inputs.shape[1] not in (1, 3) or tuple(inputs.shape[-2:]) != tuple(size):
        return []
    low, high = inputs.amin(dim=(1, 2, 3), keepdim=True), inputs.amax(dim=(1, 2, 3), keepdim=True)
    return [((inputs - low) / (high - low).clamp_min(1e-6)).expand(-1, 3, -1, -1)]


def has_pictures(tasks: Mapping[str, Task]) -> bool:
    """Return True if any of the tasks draws pictures."""
    return any(isinstance(task, DrawsPictures) for task in tasks.values())
