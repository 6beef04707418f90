"""Inner products of task gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlrun.weightings.inner_products import LARGEST_SQUARE, SMALLEST_SQUARE, scale_factors
from mtlrun.weightings.precision import full_precision, promoted
from mtlrun.weightings.transfer import sent

# Tensors with fewer entries are put together, up to so many entries in all.
_SMALL, _MOST_JOINED = 2**15, 2**18
# So few entries, of all gradients together, are multiplied in float64.
_FEW = 2**16
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
    squares = products.diagonal().tolist()
    outside = [place for place, square in enumerate(squares) if not SMALLEST_SQUARE < square < LARGEST_SQUARE]
    if not outside:
        return products
    factors = torch.ones(len(gradients), dtype=torch.float64)
    for position in outside:
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


@dataclass(frozen=True)
class Joined:
    """The small tensors of K gradients, put together: many small products and sums cost more than a copy.

    Args:
        places: which of a gradient's tensors these are; the others are large.
        block: [K, n], in float32 at least.
    """

    places: Sequence[int]
    block: Tensor

    @classmethod
    def of(cls, gradients: Sequence[Gradient]) -> "Joined | None":
        """Return the small tensors of gradients, None if there are none."""
        places, size = [], 0
        for place, part in enumerate(gradients[0]):
            if part.numel() < _SMALL and size + part.numel() <= _MOST_JOINED:
                places.append(place)
                size += part.numel()
        if not places:
            return None
        parts = [gradient[place] for gradient in gradients for place in places]
        flat: Tensor = torch._C._nn.flatten_dense_tensors(parts)
        return cls(places, promoted(flat).view(len(gradients), size))

    def weighted_sum(self, weights: Sequence[float], like: Gradient) -> dict[int, Tensor]:
        """Return {place: sum_k weights_k gradients_k}, shaped and stored as the tensors of `like`."""
        factors = sent(torch.tensor(weights, dtype=self.block.dtype), self.block.device)
        with full_precision(self.block.device):
            total = factors @ self.block
        parts = [like[place] for place in self.places]
        pieces = total.split([part.numel() for part in parts])
        shaped = [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
        return {
            place: piece if piece.dtype is part.dtype else piece.to(part.dtype)
            for place, piece, part in zip(self.places, shaped, parts, strict=True)
        }


def inner_products(gradients: Sequence[Gradient], joined: Joined | None = None) -> Tensor:
    """Return the inner products [K, K] of K gradients in float64, on their device, of entries of ordinary size.

    Summed tensor by tensor, so that gradients are never concatenated as a whole; the sum over tensors is in float64.

    Args:
        gradients: a tensor per parameter each.
        joined: their small tensors, where these are put together already.
    """
    first = gradients[0]
    joined = Joined.of(gradients) if joined is None else joined
    alone = range(len(first)) if joined is None else sorted(set(range(len(first))).difference(joined.places))
    with full_precision(first[0].device):
        if joined is not None and not alone and joined.block.numel() < _FEW:
            block = joined.block.double()
            products: Tensor = block @ block.T
            return products
        gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=first[0].device)
        if joined is not None:
            _add_products(gram, joined.block)
        for place in alone:
            pieces = zip(*(gradient[place].reshape(-1).split(_ENTRIES) for gradient in gradients), strict=True)
            for piece in pieces:
                _add_products(gram, torch.stack(piece))
    return gram


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add the inner products of the rows of `block` [K, n] to `gram`.

    Long sums lose digits in float32: partial sums are made in float32, and added up in float64. Products in half
    precision would lose more, and overflow.
    """
    block = promoted(block)
    whole = block.shape[1] // _CHUNK * _CHUNK
    if whole:
        chunks = block[:, :whole].view(len(block), -1, _CHUNK).transpose(0, 1)
        gram += torch.bmm(chunks, chunks.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    if whole < block.shape[1]:
        rest = block[:, whole:]
        gram += rest @ rest.T
