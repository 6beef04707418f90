"""Lookahead: lets a weighting evaluate two batches' losses at trial parameters."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mtlrun.models import MultiTaskModel
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, forked_random_numbers, positions, untouched
from mtlrun.weightings import Weighting
from mtlrun.weightings.capabilities import LooksAhead
from mtlrun.weightings.precision import promoted


class Lookahead:
    """The losses of this step's batch and of a meta batch at the present values of the model's parameters.

    Each call of `losses` sees the same random numbers, and so the same dropout masks. The weighting puts the parameters
    back itself; buffers are left to `untouched`.

    Args:
        model: in training mode.
        lr: learning rate of the step that is about to be made.
        batch_losses, meta_losses: compute the losses of this step's batch and of the meta batch.
    """

    def __init__(
        self, model: nn.Module, lr: float, batch_losses: Callable[[], Tensor], meta_losses: Callable[[], Tensor]
    ) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.lr = lr
        self._batch_losses, self._meta_losses = batch_losses, meta_losses

    def losses(self, *, meta: bool = False) -> Tensor:
        """Return the losses of the tasks that have one, with their graph."""
        with forked_random_numbers(self.parameters):
            return self._meta_losses() if meta else self._batch_losses()


def look_ahead(
    weighting: Weighting, model: MultiTaskModel, batch: LabeledBatch, meta_batch: LabeledBatch, lr: float
) -> None:
    """Let `weighting` look ahead on two batches, unless one of them has no label at all."""
    if not batch.active or not meta_batch.active:
        return

    def losses(batch: LabeledBatch) -> Tensor:
        return promoted(torch.stack(list(BatchPass(model, batch).losses.values())))

    weighting.active = positions(batch.active, batch)
    with untouched(model):
        for method in weighting.capable_of(LooksAhead):
            method.look_ahead(Lookahead(model, lr, partial(losses, batch), partial(losses, meta_batch)))
