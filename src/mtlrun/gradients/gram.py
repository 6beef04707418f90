"""Inner products of task gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlrun.weightings.inner_products import LARGEST_SQUARE, SMALLEST_SQUARE, scale_factors
from mtlrun.weightings.precision import full_precision

# Length of the partial sums of products that are made in the gradients' own precision.
_CHUNK = 2**12
# How many entries of a tensor are copied together for all tasks at a time; a multiple of the above.
_ENTRIES = 2**20

#: The gradient of one loss, a tensor per parameter.
Gradient = list[Tensor]


def gram_matrix(gradients: Sequence[Gradient]) -> Tensor:
    """Return the inner products [K, K] of K gradients, in float64 on the CPU."""
    return within_range(inner_products(gradients).cpu(), gradients)


def within_range(products: Tensor, gradients: Sequence[Gradient]) -> Tensor:
    """Return the inner products [K, K], with those computed anew that float32 could not hold.

    The squares of entries of 1e20 exceed it, and those of 1e-24 are zero in it: such gradients are scaled first. This
    takes time only where one is needed, or where a gradient is zero. The diagonal entry of a gradient that is not
    finite is not finite.

    Args:
        products: as `inner_products` returns them, on the CPU.
        gradients: those that they are the products of.
    """
    squares = products.diagonal().numpy()
    outside = ~((squares > SMALLEST_SQUARE) & (squares < LARGEST_SQUARE))
    if not outside.any():
        return products
    factors = torch.ones(len(gradients), dtype=torch.float64)
    for position in outside.nonzero()[0].tolist():
        factors[position] = scale_factors(_largest(gradients[position]))
    if (factors == 1).all():
        return products
    scaled = [
        gradient if factor == 1 else list(torch._foreach_mul(gradient, factor))
        for gradient, factor in zip(gradients, factors.tolist(), strict=True)
    ]
    return inner_products(scaled).cpu() / factors.unsqueeze(1) / factors


def _largest(gradient: Gradient) -> Tensor:
    """Return the largest absolute value of a gradient; NaN if there is a NaN."""
    ends = [end.abs() for part in gradient if part.numel() for end in part.aminmax()]
    return torch.stack(ends).max()


@full_precision()
def inner_products(gradients: Sequence[Gradient]) -> Tensor:
    """Return the inner products [K, K] of K gradients in float64, on their device, of entries of ordinary size.

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
            pieces = zip(*(grad[index].reshape(-1).split(_ENTRIES) for grad in gradients), strict=True)
            for piece in pieces:
                _add_products(gram, torch.stack(piece))
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
