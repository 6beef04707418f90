"""A multi-layer perceptron."""

from collections.abc import Sequence
from math import prod

from torch import nn

from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.width import widened


class MLP(Backbone):
    """A multi-layer perceptron on the flattened input; each linear layer with its ReLU is a stage.

    Args:
        input_shape: any shape.
        hidden: number of units in each layer.
        dropout: probability after each layer, in [0, 1).
        width: factor on all numbers in `hidden`, rounded.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        width: float = 1.0,
    ) -> None:
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden must list one or more widths >= 1, found {list(hidden)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), found {dropout}")
        sizes = [prod(input_shape), *widened(hidden, width)]
        stages = []
        for index in range(len(hidden)):
            layers: list[nn.Module] = [nn.Linear(sizes[index], sizes[index + 1]), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            stages.append(nn.Sequential(*layers))
        stages[0].insert(0, nn.Flatten())
        super().__init__(stages, input_shape)
