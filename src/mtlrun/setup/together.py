"""What keeps several seeds of a config from being trained together, found before anything is written."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.setup.plain_passes import limits_of_plain_passes
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, forked_random_numbers
from mtlrun.training.parts import Parts
from mtlrun.training.together.joint_pass import JointPass, can_be_stacked
from mtlrun.training.together.stacked_models import StackedModels

_WHAT = "steps of several seeds at once"
#: By how much the second of the two models of a trial differs from the first, relative to each parameter.
_SMALL = 0.01
#: How far losses and gradients of a trial may be from those that each model has alone, and below which gradients are 0.
_ROUNDING, _ROUNDING_OF_FLOAT32, _SMALLEST = 1e-6, 0.05, 1e-6
#: Samples of a trial.
_SAMPLES = 4


def check_together(parts: Parts, number: int) -> None:
    """Raise ConfigError if so many seeds cannot be trained together.

    Args:
        parts: of the first seed.
        number: of the seeds.
    """
    limits = limits_of_plain_passes(
        parts,
        _WHAT,
        combine_gradients=True,
        precision=("fp32", "tf32"),
        cuda_graph=(False,),
        two_pass=(False,),
        stream_rows=(False,),
    )
    problem = next(chain(limits, _try(parts)), None)
    if problem is not None:
        raise ConfigError(
            f"trainer.vectorized_seeds={number}: {problem}; leave it out, and train with -m seed=range({number})"
        )


def _try(parts: Parts) -> Iterator[str]:
    """Yield what goes wrong when a few samples go through two models at once, and what comes out is compared."""
    batch = LabeledBatch.load(parts.tasks, parts.loaders["train"].first(_SAMPLES), parts.device)
    if not can_be_stacked([batch]):
        yield "batches of this dataset cannot be stacked"
        return
    with forked_random_numbers(parts.model.parameters()), torch.enable_grad():
        try:
            yield from _compare(*_in_float64(parts.model, batch), _ROUNDING)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (RuntimeError, TypeError):  # a class of the user's may be for float32 only
            yield from _compare(copy.deepcopy(parts.model), batch, _ROUNDING_OF_FLOAT32)


def _in_float64(model: MultiTaskModel, batch: LabeledBatch) -> tuple[MultiTaskModel, LabeledBatch]:
    """Return copies in which rounding can be told from other differences."""
    (part,) = batch.source_batches
    tasks = {name: copy.deepcopy(task).double() for name, task in batch.tasks.items()}
    targets = {name: _double(target) for name, target in part.targets.items()}
    part = replace(part, tasks=tasks, inputs=_double(part.inputs), targets=targets)
    return copy.deepcopy(model).double(), LabeledBatch(tasks, [part])


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _compare(model: MultiTaskModel, batch: LabeledBatch, tolerance: float) -> Iterator[str]:
    """Yield in what two models that are computed at once differ from each alone.

    Args:
        model: the first one; the second one is a little different.
        batch: for both.
        tolerance: relative to the largest number.

    Raises:
        RuntimeError, TypeError: a model alone cannot be computed.
    """
    models = [model.train(), _disturbed(model).train()]
    alone = [_losses_and_gradients(copy.deepcopy(each), batch) for each in models]
    stacked = StackedModels(models)
    try:
        losses, regularizer = JointPass(models[0], batch.tasks)(stacked, [batch, batch])
        (losses.sum() + regularizer.sum()).backward()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        if "random" in str(error):
            yield "the model draws random numbers in a step, such as those of dropout"
        else:
            yield f"vmap cannot follow the model or a loss ({str(error).splitlines()[0]})"
        return
    for number, (values, gradients) in enumerate(alone):
        if not _is_close(losses[number], values, tolerance):
            yield "the losses are others when several models are computed at once"
        for name, gradient in gradients.items():
            found = stacked.parameters[name].grad
            if found is None or not _is_close(found[number], gradient, tolerance):
                yield f"the gradient of {name} is another when several models are computed at once"


def _disturbed(model: MultiTaskModel) -> MultiTaskModel:
    """Return a copy with other parameters, so that those of one model cannot stand in for another's unnoticed."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(_SMALL * parameter.abs().mean() * noise)
    return other


def _losses_and_gradients(model: MultiTaskModel, batch: LabeledBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses of a model, and the gradients of their sum with what joins the objective."""
    whole = BatchPass(model, batch)
    losses = torch.stack(list(whole.losses.values()))
    regularizer = whole.regularizer(batch.num_samples)
    (losses.sum() if regularizer is None else losses.sum() + regularizer).backward()
    named = model.named_parameters()
    return losses.detach(), {name: each.grad for name, each in named if each.grad is not None}


def _is_close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    scale = expected.abs().max().clamp_min(_SMALLEST)
    return bool((found.detach() - expected).abs().max() <= tolerance * scale)
