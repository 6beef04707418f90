"""One batch through the model: predictions, the losses of the tasks that have a label in it, and back to `.grad`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from typing import cast

import torch
from torch import Tensor, nn

from mtlrun.gradients import Update, backward
from mtlrun.models import MultiTaskModel, Output, SharedRepresentationModel
from mtlrun.training.batch import LabeledBatch, Stream
from mtlrun.weightings import Weighting


@dataclass(frozen=True)
class Pass:
    """A stream of samples and what the model gave for it."""

    stream: Stream
    output: Output

    def losses(self) -> dict[str, Tensor]:
        """Return each active task's loss, with those of its predictions on the way to the final one."""
        losses = self.stream.losses(self.output.predictions)
        for supervised in self.output.auxiliary:
            for name, loss in self.stream.losses(supervised.predictions).items():
                losses[name] = losses[name] + supervised.weight * loss
        return losses

    def regularizers(self) -> list[Tensor]:
        """Return what joins the objective outside the weighting."""
        terms = list(self.output.regularizers.values())
        if self.output.domain_logits is not None:
            terms.append(nn.functional.cross_entropy(self.output.domain_logits, self.stream.shares()))
        return terms

    def every(self, step: int, start: int) -> "Pass":
        """Return every step-th sample from `start` on."""

        def pick(predictions: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: prediction[start::step] for name, prediction in predictions.items()}

        auxiliary = [replace(each, predictions=pick(each.predictions)) for each in self.output.auxiliary]
        output = replace(self.output, predictions=pick(self.output.predictions), auxiliary=auxiliary)
        return Pass(self.stream.every(step, start), output)


def predict(model: MultiTaskModel, stream: Stream) -> Output:
    """Return what the model gives for a stream, of the tasks that have a label in it."""
    wanted = stream.active
    own = model.source_statistics
    with nullcontext() if own is None or stream.source is None else own.swap_in(model, stream.source):
        if not wanted or len(wanted) == len(stream.tasks) or not _leaves_out(type(model)):
            return cast(Output, model(stream.inputs))
        return cast(Output, model(stream.inputs, wanted))


@cache
def _leaves_out(kind: type[MultiTaskModel]) -> bool:
    """Say whether a model can be told which tasks are wanted; one of a user's own may know nothing of that."""
    methods = [kind.forward, *([kind.decode] if issubclass(kind, SharedRepresentationModel) else [])]
    return all("tasks" in signature(method).parameters for method in methods)


def join_losses(batch: LabeledBatch, passes: Sequence[Pass]) -> dict[str, Tensor]:
    """Return each active task's loss over all of the passes, a mean over all of its terms."""
    found = [(each.stream, each.losses()) for each in passes]
    if len(found) == 1:
        return found[0][1]
    losses = {}
    for name in batch.tasks:
        there = [(stream, own[name]) for stream, own in found if name in own]
        if len(there) == 1:
            losses[name] = there[0][1]
        elif there:
            values = torch.stack([loss for _, loss in there])
            counts = torch.stack([stream.num_terms(name) for stream, _ in there])
            losses[name] = ((counts / counts.sum()).to(values.dtype) * values).sum()
    return losses


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

    def __init__(self, model: MultiTaskModel, batch: LabeledBatch, num_parts: int = 1) -> None:
        self._model, self._batch = model, batch
        self._passes = [Pass(stream, predict(model, stream)) for stream in batch.streams]
        #: {task: loss}; a task without a label in the batch is left out.
        self.losses = join_losses(batch, self._passes)
        #: The losses [K] of each part, if there are several.
        self.parts: list[list[Tensor]] = []
        if num_parts > 1:
            found = [
                join_losses(batch, [each.every(num_parts, start) for each in self._passes])
                for start in range(num_parts)
            ]
            everywhere = [name for name in self.losses if all(name in losses for losses in found)]
            self.losses = {name: self.losses[name] for name in everywhere}
            self.parts = [[losses[name] for name in everywhere] for losses in found]

    @property
    def active(self) -> list[str]:
        """The tasks that have a loss."""
        return list(self.losses)

    @property
    def representation(self) -> Tensor | None:
        """The tensor that separates shared from own parameters; there is none for several streams together."""
        return self._passes[0].output.representation if len(self._passes) == 1 else None

    def fill_gradients(self, weighting: Weighting, reach: Reach, *, want_gram: bool, batched: bool = False) -> Update:
        """Let the weighting make an update of the losses; see `mtlrun.gradients.backward`."""
        return backward(
            weighting,
            list(self.losses.values()),
            reach.shared,
            [reach.own[name] for name in self.active],
            representation=self.representation,
            last_layer=reach.last_layer,
            regularizer=self.regularizer(),
            want_gram=want_gram,
            parts=self.parts,
            batched=batched,
        )

    def values(self) -> Tensor:
        """Return the losses of the active tasks, without graph."""
        return torch.stack([loss.detach() for loss in self.losses.values()])

    def performances(self) -> Tensor:
        """Return how well the active tasks do on the batch; see `Task.performance`."""
        found = []
        for name in self.active:
            there = [each for each in self._passes if name in each.stream.active]
            values = torch.stack([each.stream.performance(name, each.output.predictions[name]) for each in there])
            counts = torch.tensor([len(each.stream.targets[name]) for each in there]).to(values)
            found.append((values * counts).sum() / counts.sum())
        return torch.stack(found)

    def regularizer(self) -> Tensor | None:
        """Return the sum of what joins the objective outside the weighting, None if there is nothing."""
        terms = []
        for each in self._passes:
            share = len(each.stream) / self._batch.num_samples
            terms += [term if share == 1 else share * term for term in each.regularizers()]
        return torch.stack(terms).sum() if terms else None

    @torch.no_grad()
    def values_now(self) -> Tensor:
        """Return the losses of the active tasks under the weights that the model has by now."""
        losses = Forward(self._model, self._batch).losses
        return torch.stack([losses[name] for name in self.losses])


def positions(active: Sequence[str], batch: LabeledBatch) -> slice | Tensor:
    """Return where the active tasks stand among the K, as an index for tensors of length K."""
    names = list(batch.tasks)
    if len(active) == len(names):
        return slice(None)
    return torch.tensor([names.index(name) for name in active])


def forked_random_numbers(parameters: Iterable[Tensor]) -> AbstractContextManager[None]:
    """Return a context after which random numbers, on the CPU and on the parameters' GPUs, go on as before it."""
    devices = {parameter.device for parameter in parameters}
    return torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"])


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave the model's buffers and the random numbers as they were, whatever is predicted in between."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        with forked_random_numbers(model.parameters()):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
