"""The pass of a step that is computed in an unusual way: a batch of one source in which no label is missing."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch, SourceBatch
from mtlrun.training.forward import BatchPass
from mtlrun.weightings import LossWeighting
from mtlrun.weightings.precision import promoted


class PlainPass(nn.Module):
    """A model and its losses as one module, which has the model's parameters and buffers under `model`.

    Args:
        model: in training mode.
        tasks: those of the model.
    """

    def __init__(self, model: MultiTaskModel, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.model, self._tasks = model, dict(tasks)

    def forward(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the losses [K] of labeled samples, and what joins the objective outside the weighting, []."""
        all_labeled = dict.fromkeys(self._tasks)
        samples = SourceBatch(self._tasks, inputs, targets, all_labeled, all_labeled)
        whole = BatchPass(self.model, LabeledBatch(self._tasks, [samples]))
        losses = torch.stack([promoted(whole.losses[name]) for name in self._tasks])
        regularizer = whole.regularizer(len(samples))
        return losses, losses.new_zeros(()) if regularizer is None else regularizer


def shapes(batch: LabeledBatch) -> tuple[object, ...] | None:
    """Return the shapes and types of a batch of one source without missing labels and sample weights, else None."""
    if len(batch.source_batches) != 1:
        return None
    (part,) = batch.source_batches
    if part.source is not None or part.sample_weights or not isinstance(part.inputs, Tensor):
        return None
    if any(index is not None for index in part.label_index.values()):
        return None
    return tuple((tensor.shape, tensor.dtype) for tensor in (part.inputs, *part.targets.values()))


def weigh(weightings: Sequence[LossWeighting], losses: Tensor) -> Tensor:
    """Return the gradients of objectives with respect to their losses, both [number of weightings, K].

    What the weightings learn gets its gradients, too.
    """
    leaf = losses.detach().clone().requires_grad_()
    objectives = [weighting.scalarize(values) for weighting, values in zip(weightings, leaf.unbind(), strict=True)]
    torch.autograd.backward(objectives)
    assert leaf.grad is not None
    return leaf.grad
