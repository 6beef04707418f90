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
        sizes = [tensor.numel() for tensor in inputs]
        #: In float32 at least.
        self.matrix = torch.empty(num_rows, sum(sizes), dtype=dtype, device=inputs[0].device)
        #: The rows, a view per input.
        self.gradients: list[Gradient] = [
            [piece.view(tensor.shape) for piece, tensor in zip(row.split(sizes), inputs, strict=True)]
            for row in self.matrix
        ]
        #: Whether any of the gradients reaches each of the inputs.
        self.reached = [False] * len(inputs)

    @torch.no_grad()
    def put(self, position: int, gradient: Sequence[Tensor | None]) -> None:
        """Copy a gradient into a row; zeros for None."""
        targets, sources = [], []
        for index, (view, part) in enumerate(zip(self.gradients[position], gradient, strict=True)):
            if part is None:
                view.zero_()
                continue
            self.reached[index] = True
            targets.append(view)
            sources.append(part)
        if targets:
            torch._foreach_copy_(targets, sources)
