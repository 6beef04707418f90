"""Parts of mixtures of experts: the gates, what they see of the input, and weighted sums of the experts' features."""

from collections.abc import Iterable, Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Backbone
from mtlrun.models.blocks.layers import resize

#: Largest height and width of the grid of means that gates see of an image.
GRID = 4


class GateInput(nn.Module):
    """The vector [batch, size] that gates see of the model's input x.

    In the papers inputs are vectors, and gates are linear in all of x. Vectors are used as they are. Images become a
    small grid of means: a linear map of all pixels would be larger than many experts, and would see little more than
    where the image is bright. Other inputs are flattened. Where some numbers are indices of categories, gates see
    embeddings of these in their place, which are learned and the same for all gates: the parameters of this module.

    Args:
        network: an expert, to read the shape of inputs from.

    Raises:
        ValueError: inputs are not real numbers.
    """

    def __init__(self, network: Backbone) -> None:
        example = network.example()
        if not example.is_floating_point():
            raise ValueError(
                f"gates are linear in the input, which must be real numbers, found {example.dtype}; "
                "use a model without such gates, such as hard"
            )
        super().__init__()
        self.embed = network.embed_inputs()
        with torch.no_grad():
            shape = (example if self.embed is None else self.embed(example)).shape[1:]
        self.grid = tuple(min(side, GRID) for side in shape[1:]) if len(shape) == 3 else ()
        self.size = prod((shape[0], *self.grid)) if self.grid else prod(shape)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.embed is not None:
            inputs = self.embed(inputs)
        return (resize(inputs, self.grid) if self.grid else inputs).flatten(1)


class SoftmaxGate(nn.Module):
    """A gate that weights E experts for each sample: g(v) = softmax(W v), linear and without a bias, as in the papers.

    Args:
        size: length of the vector v that the gate sees.
        num_experts: E, at least 2: a single expert needs no gate.
    """

    def __init__(self, size: int, num_experts: int) -> None:
        super().__init__()
        assert num_experts > 1
        self.linear = nn.Linear(size, num_experts, bias=False)

    def forward(self, gate_input: Tensor) -> Tensor:
        """Map [batch, size] to weights [batch, E]."""
        weights: Tensor = self.linear(gate_input).softmax(dim=1)
        return weights


def name_experts(tasks: Iterable[str], num_task_experts: int, num_shared_experts: int) -> list[str]:
    """Return names of the experts: first those of each task, task by task, then the shared ones."""
    names = [f"task_{task}_{index + 1}" for task in tasks for index in range(num_task_experts)]
    return names + [f"shared_{index + 1}" for index in range(num_shared_experts)]


def stack_units(features: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Return the features of each unit of experts stacked, [batch, size, ...], so that several gates can weight them.

    Args:
        features: of all experts, unit by unit, each [batch, ...].
        sizes: number of experts in each unit; units of size 0 are left out.
    """
    units, start = [], 0
    for size in sizes:
        if size:
            units.append(torch.stack(list(features[start : start + size]), dim=1))
        start += size
    return units


def mixture(weights: Tensor, units: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum [batch, ...] of the experts in some units.

    Each unit is weighted without copying it, so that experts seen by several gates are stored once.

    Args:
        weights: [batch, E], or [E] if they are the same for all samples; E experts in all units together.
        units: see `stack_units`.
    """
    parts = weights.split([unit.shape[1] for unit in units], dim=-1)
    sums: list[Tensor] = [part.unsqueeze(-2) @ unit.flatten(2) for part, unit in zip(parts, units, strict=True)]
    total: Tensor = reduce(torch.add, sums)
    return total.view(total.shape[0], *units[0].shape[2:])
