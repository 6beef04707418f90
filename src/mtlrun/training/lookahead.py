"""Lookahead: losses at trial parameters, for a weighting, or to measure what the tasks' steps do to each other."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlrun.gradients import lookahead_affinity
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

    losses = partial(_losses, model)
    weighting.active = positions(batch.active, batch)
    with untouched(model):
        for method in weighting.capable_of(LooksAhead):
            method.look_ahead(Lookahead(model, lr, partial(losses, batch), partial(losses, meta_batch)))


def measure_affinity(
    model: MultiTaskModel, batch: LabeledBatch, shared: Sequence[nn.Parameter], optimizer: Optimizer
) -> Tensor:
    """Return the lookahead affinities [K, K] of the tasks with a label in the batch, for steps of the present rates.

    Nothing changes by it: parameters, buffers and random numbers are afterwards as they were before.

    Args:
        model: in training mode.
        batch: with one or more labels.
        shared: the parameters that the tasks share.
        optimizer: whose groups have the learning rates.
    """
    rates = {parameter: float(group["lr"]) for group in optimizer.param_groups for parameter in group["params"]}

    def losses() -> Sequence[Tensor]:
        with forked_random_numbers(model.parameters()):
            return _losses(model, batch).unbind()

    with untouched(model):
        return lookahead_affinity(losses, shared, [rates[parameter] for parameter in shared])


def _losses(model: MultiTaskModel, batch: LabeledBatch) -> Tensor:
    return promoted(torch.stack(list(BatchPass(model, batch).losses.values())))
