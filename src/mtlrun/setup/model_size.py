"""Model size: parameters, MACs, and the width at which one model is as large as another."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.records.record import Match
from mtlrun.training.batch import LabeledBatch

_HALVINGS = 30  # of the interval that holds the width
_WIDEST = 64.0  # as a multiple of the configured width


def count_parameters(parameters: Iterable[Tensor]) -> int:
    """Return the number of scalars in `parameters`, such as `model.parameters()`, which include frozen ones."""
    return sum(parameter.numel() for parameter in parameters)


def count_macs(model: nn.Module, inputs: Tensor, tasks: Sequence[str] | None = None) -> int:
    """Return the MACs (multiply-accumulate operations) of convolutions and matrix products for one sample.

    Args:
        model: run in evaluation mode, and left in the mode that it was in.
        inputs: a batch of one sample or more, on the model's device.
        tasks: whose predictions are computed; None for all.
    """
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(inputs[:1]) if tasks is None else model(inputs[:1], tasks)
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


def count_macs_of_batch(model: MultiTaskModel, batch: LabeledBatch) -> int:
    """Return the MACs of one sample; if sources go through the model separately, of one sample of each."""
    return sum(
        count_macs(model, samples.inputs, None if samples.source is None else samples.active)
        for samples in batch.source_batches
    )


def match_width(reference: Callable[[], nn.Module], candidate: Callable[[float], nn.Module], width: float) -> Match:
    """Return the width at which the candidate's number of parameters is nearest to the reference's.

    Args:
        reference: builds the model to be matched.
        candidate: builds the other model at a width; its number of parameters grows with the width.
        width: where the search begins.

    Raises:
        ConfigError: no width comes within a tenth of the reference.
    """
    target = _count(reference)
    seen: dict[float, int] = {}

    def is_enough(width: float) -> bool:
        seen[width] = _count(lambda: candidate(width))
        return seen[width] >= target

    low, high = width / _WIDEST, width
    while not is_enough(high) and high < width * _WIDEST:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        if high - low < 1e-4 * high:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    best = min(seen, key=lambda width: (abs(seen[width] - target), width))
    if abs(seen[best] - target) > 0.1 * target:
        raise ConfigError(
            f"match_parameters: no backbone.width gives about {target:,} parameters; the nearest, {best:.4g}, gives "
            f"{seen[best]:,}"
        )
    return Match(round(best, 6), seen[best], target)


def _count(make: Callable[[], nn.Module]) -> int:
    """Count the parameters, if possible without allocating them, and without consuming random numbers."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return count_parameters(make().parameters())
        except (NotImplementedError, RuntimeError):  # a constructor that reads values
            return count_parameters(make().parameters())
