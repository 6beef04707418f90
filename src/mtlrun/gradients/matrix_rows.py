"""The rows of a Jacobian, filled one after the other."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from mtlrun.gradients.gram import Gradient
from mtlrun.weightings.precision import at_least_float32


class MatrixRows:
    """A matrix [K, P] whose rows are put in as gradients are taken, so that these need not be kept beside it.

    Args:
        num_rows: K.
        inputs: what the gradients are taken with respect to, with P entries in all.
    """

    def __init__(self, num_rows: int, inputs: Sequence[Tensor]) -> None:
        dtype = at_least_float32(reduce(torch.promote_types, (tensor.dtype for tensor in inputs)))
        self._inputs = inputs
        #: In float32 at least.
        self.matrix = inputs[0].new_empty(num_rows, sum(map(torch.numel, inputs)), dtype=dtype)
        #: The rows, each as a gradient of one tensor.
        self.gradients: list[Gradient] = [[row] for row in self.matrix.unbind()]
        #: Whether any of the gradients reaches each of the inputs.
        self.reached = [False] * len(inputs)

    @torch.no_grad()
    def put(self, position: int, gradient: Sequence[Tensor | None]) -> None:
        """Copy a gradient into a row; zeros for None."""
        self.reached = [known or part is not None for known, part in zip(self.reached, gradient, strict=True)]
        parts = [
            (torch.zeros_like(tensor) if part is None else part).reshape(-1)
            for tensor, part in zip(self._inputs, gradient, strict=True)
        ]
        torch.cat(parts, out=self.matrix[position])
