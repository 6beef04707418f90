"""One batch of each of several models through them at once: the tasks' losses of all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtlrun.models import MultiTaskModel
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.plain_pass import PlainPass, shapes
from mtlrun.training.together.stacked_models import StackedModels


class JointPass:
    """The forward pass and the losses of several models, one vectorized call for all.

    Args:
        model: any of them, in training mode.
        tasks: those of the model.
    """

    def __init__(self, model: MultiTaskModel, tasks: Mapping[str, Task]) -> None:
        self._pass = PlainPass(model, tasks)

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


def can_be_stacked(batches: Sequence[LabeledBatch]) -> bool:
    """Return True if the batches have one shape, and each sample of them has the label of each task."""
    return len({shapes(batch) for batch in batches}) == 1 and shapes(batches[0]) is not None
