"""A multi-layer perceptron, and the layers that it is made of."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from mtlrun.config.bounds import FractionBelowOne, Width, WidthFactor, checked
from mtlrun.config.checks import check_one_of
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.width import widened

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "mish", "selu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "selu": nn.SELU,
}  # fmt: skip
Norm = Literal["none", "batch", "layer"]


class MLP(Backbone):
    """A multi-layer perceptron on the flattened input; each linear layer with what follows it is a stage.

    Args:
        input_shape: any shape.
        hidden: number of units in each layer.
        dropout: probability after each layer, in [0, 1).
        norm: `none`, `batch` (BatchNorm) or `layer` (LayerNorm), between each linear layer and its activation.
        activation: `relu`, `leaky_relu`, `gelu`, `silu`, `mish` or `selu`.
        residual: add to the output of each layer its input, where both are equally long.
        width: factor on all numbers in `hidden`, rounded.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        hidden: Sequence[Width] = (128, 64),
        dropout: FractionBelowOne = 0.0,
        norm: Norm = "none",
        activation: Activation = "relu",
        residual: bool = False,
        width: WidthFactor = 1.0,
    ) -> None:
        stages = hidden_stages(
            prod(input_shape), hidden, dropout=dropout, norm=norm, activation=activation, residual=residual, width=width
        )
        stages[0].insert(0, nn.Flatten())
        super().__init__(stages, input_shape)


class Residual(nn.Sequential):
    """Layers whose input is added to their output."""

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = super().forward(features)
        return features + output


def hidden_stages(
    size: int,
    hidden: Sequence[int],
    *,
    dropout: float,
    norm: Norm,
    activation: Activation,
    residual: bool,
    width: float,
) -> list[nn.Sequential]:
    """Return a stage for each hidden layer: linear layer, normalization, activation, dropout.

    Args:
        size: length of the input, which the first linear layer maps.
        hidden, dropout, norm, activation, residual, width: see `MLP`. The first stage is never residual.

    Raises:
        ValueError: an argument is out of its bounds.
    """
    if not hidden:
        raise ValueError("hidden must list one or more widths >= 1, found []")
    check_one_of("norm", norm, Norm)
    check_one_of("activation", activation, Activation)
    widths = widened(hidden, width)
    if residual and not any(before == after for before, after in pairwise(widths)):
        raise ValueError(f"residual needs two layers of equal width in hidden, one after the other, found {widths}")
    stages = []
    for index, (before, after) in enumerate(pairwise([size, *widths])):
        layers: list[nn.Module] = [nn.Linear(before, after)]
        if norm != "none":
            layers.append(nn.BatchNorm1d(after) if norm == "batch" else nn.LayerNorm(after))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        stages.append((Residual if residual and index and before == after else nn.Sequential)(*layers))
    return stages
