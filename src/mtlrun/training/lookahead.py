"""What a weighting is given that tries out a step before it is made: the model's losses at whatever its weights are."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mtlrun.models import MultiTaskModel
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import Forward, forked_random_numbers, untouched
from mtlrun.weightings import Weighting


class Trial:
    """The losses of two batches under the model's present weights.

    Each call of `losses` sees the same random numbers, and so the same dropout masks. The weighting puts the parameters
    back itself; buffers are left to `untouched`.

    Args:
        model: in training mode.
        lr: learning rate of the step that is about to be made.
        first, second: compute the losses [K] of this step's batch and of another one.
    """

    def __init__(self, model: nn.Module, lr: float, first: Callable[[], Tensor], second: Callable[[], Tensor]) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.lr = lr
        self._first, self._second = first, second

    def losses(self, *, second: bool = False) -> Tensor:
        """Return the losses [K], with their graph."""
        with forked_random_numbers(self.parameters):
            return self._second() if second else self._first()


def try_step(weighting: Weighting, model: MultiTaskModel, batch: LabeledBatch, other: LabeledBatch, lr: float) -> None:
    """Let `weighting` look ahead on two batches, this step's and another one; not where a task has no label in one."""
    if any(len(each.active) < len(each.tasks) for each in (batch, other)):
        return

    def losses(batch: LabeledBatch) -> Tensor:
        return torch.stack(list(Forward(model, batch).losses.values()))

    weighting.active = slice(None)
    with untouched(model):
        weighting.look_ahead(Trial(model, lr, partial(losses, batch), partial(losses, other)))
