"""What mixtures of experts are made of: what gates see, gates, and weighted sums of the experts' features."""

from collections.abc import Iterable, Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Backbone
from mtlrun.models.blocks.layers import resize

#: Images are shown to gates as means over at most this many rows and columns.
GRID = 4


class GateInput(nn.Module):
    """What gates see of the model's input x, as a vector [batch, size].

    The papers have vectors, and gates linear in all of x. Vectors are taken as they are. Images become a small grid of
    means: a linear map of all pixels would be larger than many an expert, and sees no more than where something is
    bright. Other inputs are flattened.

    Args:
        network: an expert, which knows what inputs look like.
    """

    def __init__(self, network: Backbone) -> None:
        example = network.example()
        if not example.is_floating_point():
            raise ValueError(
                f"gates are linear in the input, which must be real numbers, found {example.dtype}; "
                "use a model without such gates, such as hard"
            )
        super().__init__()
        shape = example.shape[1:]
        self.grid = tuple(min(side, GRID) for side in shape[1:]) if len(shape) == 3 else ()
        self.size = prod((shape[0], *self.grid)) if self.grid else prod(shape)

    def forward(self, inputs: Tensor) -> Tensor:
        return (resize(inputs, self.grid) if self.grid else inputs).flatten(1)


class SoftmaxGate(nn.Module):
    """The weights of E experts for each sample: g(v) = softmax(W v), linear and without a bias, as in the papers.

    Args:
        size: of the vector v that the gate sees.
        num_experts: E; of a single one there is nothing to choose, and no gate is needed.
    """

    def __init__(self, size: int, num_experts: int) -> None:
        super().__init__()
        assert num_experts > 1
        self.linear = nn.Linear(size, num_experts, bias=False)

    def forward(self, seen: Tensor) -> Tensor:
        """Map [batch, size] to [batch, E]."""
        found: Tensor = self.linear(seen).softmax(dim=1)
        return found


def check_numbers(shared_experts: int, task_experts: int) -> None:
    """Refuse to go without shared experts or without those of each task, by a ValueError."""
    if shared_experts < 1:
        raise ValueError(f"shared_experts must be >= 1, found {shared_experts}; model=single has none")
    if task_experts < 1:
        raise ValueError(f"task_experts must be >= 1, found {task_experts}; model=mmoe has none")


def name_experts(tasks: Iterable[str], task_experts: int, shared_experts: int) -> list[str]:
    """Return names of the experts: those of each of these tasks one after the other, then the shared ones."""
    own = [f"own_{task}_{index + 1}" for task in tasks for index in range(task_experts)]
    return own + [f"shared_{index + 1}" for index in range(shared_experts)]


def stack_units(features: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Return the features of each unit of experts as one tensor [batch, size, ...], which several gates weight.

    Args:
        features: of all experts, unit by unit, each [batch, ...].
        sizes: number of experts in each unit; a unit of none is left out.
    """
    found, start = [], 0
    for size in sizes:
        if size:
            found.append(torch.stack(list(features[start : start + size]), dim=1))
        start += size
    return found


def mixture(weights: Tensor, units: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum [batch, ...] of the experts in some units.

    Units are weighted where they lie, so that experts seen by several gates are not copied for each.

    Args:
        weights: [batch, E], or [E] for all samples alike; E experts in all units together.
        units: see `stack_units`.
    """
    parts = weights.split([unit.shape[1] for unit in units], dim=-1)
    sums: list[Tensor] = [part.unsqueeze(-2) @ unit.flatten(2) for part, unit in zip(parts, units, strict=True)]
    total: Tensor = reduce(torch.add, sums)
    return total.view(total.shape[0], *units[0].shape[2:])
