"""Inner products of task gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Length of the sums of products that are made in the rows' own precision.
_CHUNK = 2**12

# One row: the gradient of one task's loss, a tensor per parameter.
Row = list[Tensor]


class NonFiniteGradientError(ArithmeticError):
    """A task's gradient holds NaN or infinity, so that no update can be made of it.

    Args:
        position: which of the losses that were given it belongs to.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the gradient of loss {position} is not finite")
        self.position = position


def refuse_non_finite(finite: Tensor) -> None:
    """Raise for the first task whose entry of `finite` [K], on the CPU, is False."""
    if not finite.all():
        raise NonFiniteGradientError(int((~finite).nonzero()[0]))


def gram_matrix(rows: Sequence[Row]) -> Tensor:
    """Return the inner products [K, K] of K rows in float64, on the rows' device.

    Summed tensor by tensor, so that rows are never concatenated; the sum over tensors is in float64.
    """
    num_tasks = len(rows)
    gram = torch.zeros(num_tasks, num_tasks, dtype=torch.float64, device=rows[0][0].device)
    small = [position for position, part in enumerate(rows[0]) if part.numel() < _CHUNK]
    if small:
        # Many small products cost more than copying what they are made of into one.
        _add_products(gram, torch.stack([torch.cat([row[position].reshape(-1) for position in small]) for row in rows]))
    for position, part in enumerate(rows[0]):
        if part.numel() >= _CHUNK:
            _add_products(gram, torch.stack([row[position].reshape(-1) for row in rows]))
    return gram


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add the inner products of the rows of `block` [K, n] to `gram`.

    Long sums lose digits in float32: short ones are made of them, and these are summed in float64. Products in half
    precision would lose more, and overflow.
    """
    if block.dtype in (torch.float16, torch.bfloat16):
        block = block.float()
    whole = block.shape[1] // _CHUNK * _CHUNK
    if whole:
        chunks = block[:, :whole].view(len(block), -1, _CHUNK).transpose(0, 1)
        gram += torch.bmm(chunks, chunks.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    if whole < block.shape[1]:
        rest = block[:, whole:]
        gram += rest @ rest.T
