"""One training batch through the model, at once or in micro-batches: predictions, losses, and back to `.grad`."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature

import torch
from torch import Tensor, nn

from mtlrun.gradients import GradientStep, Sharing, Update
from mtlrun.models import CutsTrunk, MultiTaskModel, Output, SharedRepresentationModel
from mtlrun.training.batch import LabeledBatch, SourceBatch
from mtlrun.weightings import Weighting
from mtlrun.weightings.precision import at_least_float32, promoted
from mtlrun.weightings.state.active_tasks import index_on, task_index
from mtlrun.weightings.transfer import numbers_on


class ModelSharing:
    """Which of a model's parameters the tasks' losses reach; determined once.

    Args:
        model: whose set of trainable parameters does not change any more.
    """

    def __init__(self, model: MultiTaskModel) -> None:
        #: Parameters that several tasks' losses reach.
        self.shared = model.shared_parameters()
        #: {task: parameters that its loss alone reaches}.
        self.task_params: Mapping[str, list[nn.Parameter]] = model.task_parameters()
        #: Those of the last shared layer before the representation, if there is one.
        self.last_layer = model.last_layer() if isinstance(model, SharedRepresentationModel) else []
        #: Those of each link of the shared part, if the model gives what is between them.
        self.links = model.link_parameters() if isinstance(model, CutsTrunk) and model.cuts_trunk else []

    def of(self, tasks: Sequence[str]) -> Sharing:
        """Return the parameters that the losses of these tasks reach."""
        return Sharing(self.shared, [self.task_params[task] for task in tasks], self.last_layer, self.links)


class Forward:
    """A training batch and the model: losses, and the update that a weighting makes of them.

    Micro-batches give the update of the whole batch, except that BatchNorm sees one micro-batch at a time. Only one
    micro-batch's activations are in memory.

    Args:
        model: in training mode.
        batch: on the model's device.
        micro_batches: how many go through the model one after the other; fewer if there are fewer samples.
        num_parts: with one micro-batch, into how many parts the batch's losses are split as well, part i being every
            num_parts-th sample from the i-th on; tasks without a label in some part are then left out.
        repeatable: True if `losses_again` is to be called.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        batch: LabeledBatch,
        micro_batches: int = 1,
        *,
        num_parts: int = 1,
        repeatable: bool = False,
    ) -> None:
        self._model, self._batch, self._micro_batches = model, batch, micro_batches
        self._start = Surroundings(model) if repeatable else None
        #: The tasks that have a loss.
        self.active = batch.active
        #: The losses [K] of each part, if there are several.
        self.parts: list[list[Tensor]] = []
        self._whole: BatchPass | None = None
        if micro_batches == 1:
            self._whole = BatchPass(model, batch)
            self.active = list(self._whole.losses)
        if self._whole is not None and num_parts > 1:
            self.active, self.parts = self._whole.split_losses(num_parts)

    def backward(
        self,
        weighting: Weighting,
        sharing: ModelSharing,
        *,
        want_gram: bool = False,
        vmap: bool = False,
        two_pass: bool = False,
    ) -> Update:
        """Set `.grad` to the update that the weighting makes of the losses; see `mtlrun.gradients.GradientStep`."""
        batch_losses = None
        if self._whole is None and weighting.needs_batch_losses:
            batch_losses = self._survey()[0]
        step = GradientStep(
            weighting,
            sharing.of(self.active),
            micro_batches=self._whole is None,
            batch_losses=batch_losses,
            want_gram=want_gram,
            vmap=vmap,
            two_pass=two_pass,
            guarded=self._model.computation.scale is None,
        )
        if step.measures_first:
            with untouched(self._model):
                for part in self._passes():
                    step.measure(*self._losses_of(part), representation=part.representation)
        for part in self._passes():
            step.add(
                *self._losses_of(part),
                representation=part.representation,
                cuts=part.cuts,
                regularizer=part.regularizer(self._batch.num_samples),
                parts=self.parts,
            )
        return step.finish()

    def _losses_of(self, part: "BatchPass") -> tuple[list[Tensor], list[int]]:
        """Return the losses of the batch, or of one of its micro-batches, and which of the active tasks they are of."""
        losses = part.weighted_losses(self._batch)
        places = [index for index, name in enumerate(self.active) if name in losses]
        return [losses[self.active[place]] for place in places], places

    def performances(self) -> Tensor:
        """Return how well the active tasks do on the batch, [K]; see `MeasuresPerformance`."""
        return self._survey(performances=True)[1] if self._whole is None else self._whole.performances(self.active)

    @torch.no_grad()
    def losses_again(self) -> Tensor:
        """Return the losses of the active tasks at the present values of the model's parameters, [K].

        Nothing but the parameters differs from the first pass: the model sees the same random numbers, such as dropout
        masks, and the same buffers, which are left alone, so that no batch enters running statistics twice.
        """
        if self._start is None:
            raise ValueError("the pass cannot be repeated; set repeatable=True")
        with untouched(self._model):
            self._start.restore()
            if self._whole is None:
                return self._survey(leave_no_trace=False)[0]
            losses = BatchPass(self._model, self._batch).losses
        return promoted(torch.stack([losses[name] for name in self.active]))

    def _passes(self) -> "Iterator[BatchPass]":
        """Yield the pass of the batch, or of one micro-batch after the other."""
        if self._whole is not None:
            yield self._whole
            return
        for micro_batch in self._batch.split(self._micro_batches):
            yield BatchPass(self._model, micro_batch)

    @torch.no_grad()
    def _survey(self, *, performances: bool = False, leave_no_trace: bool = True) -> tuple[Tensor, Tensor]:
        """Return losses and performances of the active tasks, means over the whole batch, without gradients.

        Draws the same random numbers as the pass with gradients.
        """
        if leave_no_trace:
            with untouched(self._model):
                return self._survey(performances=performances, leave_no_trace=False)
        totals = self._batch.num_terms()
        sums = torch.zeros(2, len(self.active), dtype=torch.float64, device=totals.device)
        dtype = torch.float32
        for part in self._passes():
            if not part.losses:
                continue
            places = index_on([self.active.index(name) for name in part.losses], totals.device)
            values = torch.stack(list(part.losses.values()))
            dtype = at_least_float32(values.dtype)
            fractions = part.batch.num_terms() / totals[places]
            sums[0, places] += fractions * values
            if performances:
                sums[1, places] += fractions * part.performances(list(part.losses))
        return sums[0].to(dtype), sums[1].to(dtype)


class BatchPass:
    """What the model gave for a batch or micro-batch; it goes through the model source by source where these differ.

    Args:
        model: predicts.
        batch: on the model's device.
    """

    def __init__(self, model: MultiTaskModel, batch: LabeledBatch) -> None:
        self.batch = batch
        self._passes = [SourcePass(part, run_model(model, part)) for part in batch.source_batches]
        #: {task: loss}; a task without a label in the batch is left out.
        self.losses = join_losses(batch, self._passes)

    @property
    def representation(self) -> Tensor | None:
        """The tensor that separates shared from task-specific parameters; None where there are several sources."""
        return self._passes[0].output.representation if len(self._passes) == 1 else None

    @property
    def cuts(self) -> Sequence[Tensor | None]:
        """What is between the links of the shared part, if the model gives it, and there is one source."""
        return self._passes[0].output.cuts if len(self._passes) == 1 else ()

    def weighted_losses(self, batch: LabeledBatch) -> dict[str, Tensor]:
        """Return the losses such that those of the micro-batches of `batch` add up to its own."""
        if self.batch is batch or not self.losses:
            return self.losses
        totals = dict(zip(batch.active, batch.num_terms(), strict=True))
        fractions = [
            terms / totals[name] for name, terms in zip(self.batch.active, self.batch.num_terms(), strict=True)
        ]
        pairs = zip(fractions, self.losses.items(), strict=True)
        return {name: fraction.to(loss.dtype) * loss for fraction, (name, loss) in pairs}

    def split_losses(self, num_parts: int) -> tuple[list[str], list[list[Tensor]]]:
        """Return the tasks that have a label in every part of the batch, and their losses [num_parts][K]."""
        parts = [
            join_losses(self.batch, [each.every_nth(num_parts, start) for each in self._passes])
            for start in range(num_parts)
        ]
        everywhere = [name for name in self.losses if all(name in losses for losses in parts)]
        return everywhere, [[losses[name] for name in everywhere] for losses in parts]

    def performances(self, tasks: Sequence[str]) -> Tensor:
        """Return how well these active tasks do on the batch, [len(tasks)]; see `MeasuresPerformance`."""
        performances = []
        for name in tasks:
            passes = [each for each in self._passes if name in each.samples.active]
            values = torch.stack([each.samples.performance(name, each.output.predictions[name]) for each in passes])
            counts = numbers_on(values.device, [len(each.samples.targets[name]) for each in passes]).to(values.dtype)
            performances.append((values * counts).sum() / counts.sum())
        return torch.stack(performances)

    def regularizer(self, num_samples: int) -> Tensor | None:
        """Return the sum of what joins the objective outside the weighting, None if there is nothing.

        Args:
            num_samples: of the whole batch, of which this may be a micro-batch.
        """
        terms = []
        for each in self._passes:
            fraction = len(each.samples) / num_samples
            terms += [term if fraction == 1 else fraction * term for term in each.regularizers()]
        return torch.stack(terms).sum() if terms else None


@dataclass(frozen=True)
class SourcePass:
    """Samples that went through the model together, and its output."""

    samples: SourceBatch
    output: Output

    def losses(self) -> dict[str, Tensor]:
        """Return each active task's loss, with those of its auxiliary predictions."""
        losses = self.samples.losses(self.output.predictions)
        for supervised in self.output.auxiliary:
            for name, loss in self.samples.losses(supervised.predictions).items():
                losses[name] = losses[name] + supervised.weight * loss
        return losses

    def regularizers(self) -> list[Tensor]:
        """Return what joins the objective outside the weighting."""
        terms = list(self.output.regularizers.values())
        if self.output.domain_logits is not None:
            terms.append(nn.functional.cross_entropy(self.output.domain_logits, self.samples.task_fractions()))
        return terms

    def every_nth(self, step: int, start: int) -> "SourcePass":
        """Return every step-th sample from `start` on."""

        def pick(predictions: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: prediction[start::step] for name, prediction in predictions.items()}

        auxiliary = [replace(each, predictions=pick(each.predictions)) for each in self.output.auxiliary]
        output = replace(self.output, predictions=pick(self.output.predictions), auxiliary=auxiliary)
        return SourcePass(self.samples.every_nth(step, start), output)


def run_model(model: MultiTaskModel, samples: SourceBatch, also: Collection[str] = ()) -> Output:
    """Return the model's output for samples, of the tasks that have a label among them and those in `also`."""
    tasks = samples.active
    if also:
        tasks = [name for name in samples.tasks if name in tasks or name in also]
    return run_inputs(model, samples.inputs, () if len(tasks) == len(samples.tasks) else tasks, samples.source)


def run_inputs(model: MultiTaskModel, inputs: Tensor, tasks: Sequence[str], source: str | None = None) -> Output:
    """Return the model's output for inputs [batch, ...], predictions in float32 at least; see `Computation`.

    Args:
        model: in training mode or not.
        inputs: on its device.
        tasks: the requested ones; none for all. Models of the user's may give others as well.
        source: where the inputs come from, if running statistics of BatchNorm are kept for each source.
    """
    requested = tasks if tasks and _accepts_tasks(type(model)) else None
    statistics = model.source_statistics
    with nullcontext() if statistics is None or source is None else statistics.swap_in(model, source):
        return model.computation.run(model, inputs, requested)


@cache
def _accepts_tasks(kind: type[MultiTaskModel]) -> bool:
    """Return True if `forward` takes `tasks`; user models may not."""
    methods = [kind.forward, *([kind.decode] if issubclass(kind, SharedRepresentationModel) else [])]
    return all("tasks" in signature(method).parameters for method in methods)


def join_losses(batch: LabeledBatch, passes: Sequence[SourcePass]) -> dict[str, Tensor]:
    """Return each active task's loss over all of the passes, a mean over all of its terms."""
    by_pass = [(each.samples, each.losses()) for each in passes]
    if len(by_pass) == 1:
        return by_pass[0][1]
    losses = {}
    for name in batch.tasks:
        with_loss = [(samples, pass_losses[name]) for samples, pass_losses in by_pass if name in pass_losses]
        if len(with_loss) == 1:
            losses[name] = with_loss[0][1]
        elif with_loss:
            values = torch.stack([loss for _, loss in with_loss])
            counts = numbers_on(values.device, [samples.num_terms(name) for samples, _ in with_loss])
            losses[name] = ((counts / counts.sum()).to(values.dtype) * values).sum()
    return losses


def positions(active: Sequence[str], batch: LabeledBatch) -> slice | Tensor:
    """Return the positions of the active tasks among the K, as an index for tensors of length K on the CPU."""
    if len(active) == len(batch.tasks):
        return slice(None)
    names = list(batch.tasks)
    return task_index([names.index(name) for name in active], len(names))


class RandomNumbers:
    """The random numbers to come, on the CPU and on the GPUs of some tensors, as they stand when this is made.

    Args:
        tensors: on whose GPUs.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        gpus = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
        self._cpu = torch.random.get_rng_state()
        self._gpus = {device: torch.cuda.get_rng_state(device) for device in gpus}

    def restore(self) -> None:
        """Let the same random numbers come again."""
        torch.random.set_rng_state(self._cpu)
        for device, state in self._gpus.items():
            torch.cuda.set_rng_state(state, device)


class Surroundings:
    """All that a model's pass depends on besides inputs and parameters, as it stands when this is made.

    Args:
        model: whose buffers are copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._buffers = [buffer.clone() for buffer in model.buffers()]
        self._random_numbers = RandomNumbers(model.parameters())

    @torch.no_grad()
    def restore(self) -> None:
        """Put the buffers and the random numbers back."""
        for buffer, before in zip(self._model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        self._random_numbers.restore()


@contextmanager
def forked_random_numbers(parameters: Iterable[Tensor]) -> Iterator[None]:
    """After this context, random numbers, on the CPU and on the parameters' GPUs, go on as before it."""
    before = RandomNumbers(parameters)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave the model's buffers and the random numbers as they were, whatever is predicted in between."""
    before = Surroundings(model)
    try:
        yield
    finally:
        before.restore()
