"""One batch of each of several models through them at once: the tasks' losses of all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch, SourceBatch
from mtlrun.training.forward import BatchPass
from mtlrun.training.together.stacked_models import StackedModels
from mtlrun.weightings.precision import promoted


class JointPass:
    """The forward pass and the losses of several models, one vectorized call for all.

    Args:
        model: any of them, in training mode.
        tasks: those of the model.
    """

    def __init__(self, model: MultiTaskModel, tasks: Mapping[str, Task]) -> None:
        self._pass = _Pass(model, tasks)

    def __call__(self, models: StackedModels, batches: Sequence[LabeledBatch]) -> tuple[Tensor, Tensor]:
        """Return the losses [num_models, K], and what joins the objective outside the weighting, [num_models].

        Args:
            models: the parameters; those of BatchNorm's running statistics among the buffers are updated.
            batches: one for each model, which can be stacked; see `can_be_stacked`.

        Raises:
            RuntimeError: the pass is not one that can be vectorized, such as one that draws random numbers.
        """
        parts = [batch.source_batches[0] for batch in batches]
        inputs = torch.stack([part.inputs for part in parts])
        targets = {name: torch.stack([part.targets[name] for part in parts]) for name in parts[0].tasks}

        def of_one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *samples: object) -> tuple[Tensor, ...]:
            state = {f"model.{name}": tensor for name, tensor in (parameters | buffers).items()}
            result: tuple[Tensor, ...] = torch.func.functional_call(self._pass, state, samples)
            return result

        vectorized = torch.func.vmap(of_one, randomness="error")
        losses, regularizer = vectorized(models.parameters, models.buffers, inputs, targets)
        return losses, regularizer


class _Pass(nn.Module):
    """The pass of one model, as a module whose parameters and buffers are the model's."""

    def __init__(self, model: MultiTaskModel, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.model, self._tasks = model, dict(tasks)

    def forward(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        all_labeled = dict.fromkeys(self._tasks)
        samples = SourceBatch(self._tasks, inputs, targets, all_labeled, all_labeled)
        whole = BatchPass(self.model, LabeledBatch(self._tasks, [samples]))
        losses = torch.stack([promoted(whole.losses[name]) for name in self._tasks])
        regularizer = whole.regularizer(len(samples))
        return losses, losses.new_zeros(()) if regularizer is None else regularizer


def can_be_stacked(batches: Sequence[LabeledBatch]) -> bool:
    """Return True if the batches have one shape, and each sample of them has the label of each task."""
    return len({_shapes(batch) for batch in batches}) == 1 and _shapes(batches[0]) is not None


def _shapes(batch: LabeledBatch) -> tuple[object, ...] | None:
    """Return the shapes and types of a batch of one source without missing labels and sample weights, else None."""
    if len(batch.source_batches) != 1:
        return None
    (part,) = batch.source_batches
    if part.source is not None or part.sample_weights or not isinstance(part.inputs, Tensor):
        return None
    if any(index is not None for index in part.label_index.values()):
        return None
    tensors = [part.inputs, *part.targets.values()]
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)
