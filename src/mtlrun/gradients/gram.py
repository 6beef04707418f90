"""Inner products of task gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Length of the partial sums of products that are made in the gradients' own precision.
_CHUNK = 2**12

#: The gradient of one loss, a tensor per parameter.
Gradient = list[Tensor]


class NonFiniteGradientError(ArithmeticError):
    """Error for a task gradient that holds NaN or infinity, so that no update can be made of it.

    Args:
        position: of its loss among those given.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the gradient of loss {position} is not finite")
        self.position = position


def refuse_non_finite(finite: Tensor) -> None:
    """Raise for the first task whose entry of `finite` [K], on the CPU, is False."""
    if not finite.all():
        raise NonFiniteGradientError(int((~finite).nonzero()[0]))


def gram_matrix(gradients: Sequence[Gradient]) -> Tensor:
    """Return the inner products [K, K] of K gradients in float64, on their device.

    Summed tensor by tensor, so that gradients are never concatenated as a whole; the sum over tensors is in float64.
    """
    first = gradients[0]
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=first[0].device)
    small = [index for index, part in enumerate(first) if part.numel() < _CHUNK]
    if small:
        # Many small products cost more than concatenating what they are made of.
        _add_products(
            gram, torch.stack([torch.cat([grad[index].reshape(-1) for index in small]) for grad in gradients])
        )
    for index, part in enumerate(first):
        if part.numel() >= _CHUNK:
            _add_products(gram, torch.stack([grad[index].reshape(-1) for grad in gradients]))
    return gram


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add the inner products of the rows of `block` [K, n] to `gram`.

    Long sums lose digits in float32: partial sums are made in float32, and added up in float64. Products in half
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
