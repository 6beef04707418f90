"""A multi-layer perceptron."""

from collections.abc import Sequence
from math import prod

from torch import nn

from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.width import widened


class MLP(Backbone):
    """Linear-ReLU layers on the flattened input; each layer is a stage.

    Args:
        input_shape: shape of one input, any.
        hidden: size of each layer.
        dropout: probability after each layer, in [0, 1).
        width: factor on all sizes in `hidden`.
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
