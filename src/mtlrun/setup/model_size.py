"""How large a model is: parameters, MACs, and the width at which it is as large as another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtlrun.errors import ConfigError

_HALVINGS = 30  # of the interval in which the width is looked for
_WIDEST = 64.0  # as a factor on the width that is set


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, inputs: Tensor, tasks: Sequence[str] | None = None) -> int:
    """Return how many MACs a prediction takes for one sample, by convolutions and products.

    Args:
        model: as it is; evaluated in evaluation mode, and left in the mode that it was in.
        inputs: a batch of one sample or more, on the model's device.
        tasks: whose predictions are made; None for all.
    """
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(inputs[:1]) if tasks is None else model(inputs[:1], tasks)
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


@dataclass(frozen=True)
class Match:
    """A width at which one model is as large as another.

    Args:
        width: for `backbone.width`.
        parameters: what the model then has.
        wanted: what the other has.
    """

    width: float
    parameters: int
    wanted: int


def match_width(reference: Callable[[], nn.Module], candidate: Callable[[float], nn.Module], width: float) -> Match:
    """Return the width at which the candidate's number of parameters is nearest to the reference's.

    Args:
        reference: builds the model to be matched.
        candidate: builds the other one at a width; the wider, the more parameters.
        width: where to begin.

    Raises:
        ConfigError: no width comes within a tenth of the reference.
    """
    wanted = _count(reference)
    seen: dict[float, int] = {}

    def is_enough(width: float) -> bool:
        seen[width] = _count(lambda: candidate(width))
        return seen[width] >= wanted

    low, high = width / _WIDEST, width
    while not is_enough(high) and high < width * _WIDEST:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        if high - low < 1e-4 * high:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    best = min(seen, key=lambda width: (abs(seen[width] - wanted), width))
    if abs(seen[best] - wanted) > 0.1 * wanted:
        raise ConfigError(
            f"match_parameters: no backbone.width gives about {wanted:,} parameters; the nearest, {best:.4g}, gives "
            f"{seen[best]:,}"
        )
    return Match(round(best, 6), seen[best], wanted)


def _count(make: Callable[[], nn.Module]) -> int:
    """Count without memory for the weights where that works, and without moving the random numbers."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return count_parameters(make())
        except (NotImplementedError, RuntimeError):  # a constructor that looks at values
            return count_parameters(make())
