"""One batch through the model: predictions, the losses of the tasks that have a label in it, and back to `.grad`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mtlrun.gradients import Update, backward
from mtlrun.models import MultiTaskModel, Output, SharedRepresentationModel
from mtlrun.tasks import LabelledBatch
from mtlrun.weightings import Weighting


class Reach:
    """Which parameters the losses reach; read off a model once.

    Args:
        model: whose trainable parameters do not change any more.
    """

    def __init__(self, model: MultiTaskModel) -> None:
        #: Parameters that several tasks' losses reach.
        self.shared = model.shared_parameters()
        #: {task: parameters that its loss alone reaches}.
        self.own: Mapping[str, list[nn.Parameter]] = model.task_parameters()
        #: The last shared parameters before the representation, if there is one.
        self.last_layer = model.last_layer() if isinstance(model, SharedRepresentationModel) else []


class Forward:
    """What a forward pass gave.

    Args:
        model: in training mode.
        batch: on the model's device.
        num_parts: into how many parts of the batch the losses are split as well, each of every num_parts-th sample;
            tasks without a label in some part are then left out.
    """

    def __init__(self, model: MultiTaskModel, batch: LabelledBatch, num_parts: int = 1) -> None:
        self._model, self._batch = model, batch
        self._output = model.predict(batch.inputs)
        #: {task: loss}; a task without a label in the batch is left out.
        self.losses = _losses(self._output, batch)
        #: The losses [K] of each part, if there are several.
        self.parts: list[list[Tensor]] = []
        if num_parts > 1:
            found = [_losses(*_part(self._output, batch, start, num_parts)) for start in range(num_parts)]
            everywhere = [name for name in self.losses if all(name in losses for losses in found)]
            self.losses = {name: self.losses[name] for name in everywhere}
            self.parts = [[losses[name] for name in everywhere] for losses in found]

    @property
    def active(self) -> list[str]:
        """The tasks that have a loss."""
        return list(self.losses)

    def fill_gradients(self, weighting: Weighting, reach: Reach, *, want_gram: bool, batched: bool = False) -> Update:
        """Let the weighting make an update of the losses; see `mtlrun.gradients.backward`."""
        return backward(
            weighting,
            list(self.losses.values()),
            reach.shared,
            [reach.own[name] for name in self.active],
            representation=self._output.representation,
            last_layer=reach.last_layer,
            regulariser=self.regulariser(),
            want_gram=want_gram,
            parts=self.parts,
            batched=batched,
        )

    def values(self) -> Tensor:
        """Return the losses of the active tasks, without graph."""
        return torch.stack([loss.detach() for loss in self.losses.values()])

    def performances(self) -> Tensor:
        """Return how well the active tasks do on the batch; see `Task.performance`."""
        return self._batch.performances(self._output.predictions, self.active)

    def regulariser(self) -> Tensor | None:
        """Return the sum of what joins the objective outside the weighting, None if there is nothing."""
        terms = list(self._output.regularisers.values())
        if self._output.domains is not None:
            terms.append(nn.functional.cross_entropy(self._output.domains, self._batch.shares()))
        return torch.stack(terms).sum() if terms else None

    @torch.no_grad()
    def values_now(self) -> Tensor:
        """Return the losses of the active tasks under the weights that the model has by now."""
        losses = Forward(self._model, self._batch).losses
        return torch.stack([losses[name] for name in self.losses])


def positions(active: Sequence[str], batch: LabelledBatch) -> slice | Tensor:
    """Return where the active tasks stand among the K, as an index for tensors of length K."""
    names = list(batch.tasks)
    if len(active) == len(names):
        return slice(None)
    return torch.tensor([names.index(name) for name in active])


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave the model's buffers and the random numbers as they were, whatever is predicted in between."""
    devices = [device for device in {p.device for p in model.parameters()} if device.type == "cuda"]
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)


def _losses(output: Output, batch: LabelledBatch) -> dict[str, Tensor]:
    """Return each active task's loss, with those of its predictions on the way to the final one."""
    losses = batch.losses(output.predictions)
    for supervised in output.on_the_way:
        for name, loss in batch.losses(supervised.predictions).items():
            losses[name] = losses[name] + supervised.weight * loss
    return losses


def _part(output: Output, batch: LabelledBatch, start: int, step: int) -> tuple[Output, LabelledBatch]:
    """Return every step-th sample from `start` on."""

    def pick(predictions: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: prediction[start::step] for name, prediction in predictions.items()}

    on_the_way = [replace(supervised, predictions=pick(supervised.predictions)) for supervised in output.on_the_way]
    return replace(output, predictions=pick(output.predictions), on_the_way=on_the_way), batch.part(start, step)
