"""A backbone that returns its parameters as features, for problems that are functions of the parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Real, checked
from mtlrun.models.backbones.base import Backbone


class Point(Backbone):
    """A point x, the parameter, as the features of every input.

    Args:
        input_shape: (size,), the number of coordinates.
        start: initial x; None to draw it with the run's seed, uniformly from [-0.5, 0.5] in each coordinate.
    """

    @checked
    def __init__(self, input_shape: tuple[int, ...], start: Sequence[Real] | None = None) -> None:
        (size,) = input_shape
        if start is not None and len(start) != size:
            raise ValueError(f"start must list {size} numbers, found {list(start)}")
        x = torch.rand(size) - 0.5 if start is None else torch.tensor(start, dtype=torch.get_default_dtype())
        super().__init__([_Constant(x)], input_shape)


class _Constant(nn.Module):
    """The parameter x, repeated for each sample of the batch."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.x.repeat(len(inputs), 1)  # a copy: without gradients, a view of a leaf would alias the parameter
