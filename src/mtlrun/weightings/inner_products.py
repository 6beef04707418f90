"""Lengths and inner products of task gradients whose squares the precision of their entries may not hold."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlrun.weightings.precision import full_precision

# Columns that are scaled at a time, so that no whole copy of the task gradients is needed.
_CHUNK = 2**22

# Squared lengths in this range, computed in float32, have lost nothing to overflow or underflow.
SMALLEST_SQUARE, LARGEST_SQUARE = 1e-28, 1e36


class NonFiniteGradientError(ArithmeticError):
    """Error for a task gradient that holds NaN or infinity, so that no update can be made of it.

    Args:
        position: of its loss among those given.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the gradient of loss {position} is not finite")
        self.position = position
        #: Those of the batch [K], where they are known.
        self.losses: Tensor | None = None


def refuse_non_finite(finite: Sequence[bool]) -> None:
    """Raise for the first task of the K whose gradient is not finite."""
    if not all(finite):
        raise NonFiniteGradientError(list(finite).index(False))


def nan_unless_finite(direction: Tensor, jacobians: Sequence[Tensor]) -> Tensor:
    """Return a direction as it is, or NaN if an entry of the Jacobians that it is made of is not finite."""
    ends = torch.stack([end for jacobian in jacobians for end in jacobian.aminmax()])
    return torch.where(torch.isfinite(ends).all(), direction, torch.nan)


def scale_factors(largest: Tensor) -> Tensor:
    """Return the powers of two, in float64, that bring these largest absolute values of gradients to about one.

    One for a gradient of zeros or with an entry that is not finite. Multiplying by a power of two loses no digits.
    """
    usable = (largest > 0) & torch.isfinite(largest)
    _, exponents = torch.frexp(torch.where(usable, largest, 1.0).double())
    return torch.exp2(-exponents.double().clamp(-126, 126))  # float32 holds these factors


def lengths(jacobian: Tensor) -> Tensor:
    """Return the lengths [K] of task gradients [K, P] in float64, on their device, which is not waited for."""
    if jacobian.device.type != "cpu":
        return _lengths_in_float64(jacobian)
    found: Tensor = jacobian.norm(dim=1).double()
    if _in_range(found):
        return found
    factors = _factors(jacobian)
    scaled: Tensor = (factors.to(jacobian).unsqueeze(1) * jacobian).norm(dim=1)
    return scaled.double() / factors


@full_precision()
def inner_products(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products [K, N] of task gradients [K, P] with others [N, P] in float64, on their device.

    The device is not waited for: on another one than the CPU they are scaled whether they need it or not.
    """
    if first.device.type != "cpu":
        return _scaled_products(first, second)
    if _in_range(first.norm(dim=1)) and (second is first or _in_range(second.norm(dim=1))):
        return (first @ second.T).double()
    left, right = _factors(first), _factors(second)
    products = (left.to(first).unsqueeze(1) * first) @ (right.to(second).unsqueeze(1) * second).T
    return products.double() / left.unsqueeze(1) / right


def _lengths_in_float64(jacobian: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(jacobian, dim=1, dtype=torch.float64)
    return lengths


def _scaled_products(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products of task gradients that are scaled to a length of about one, and back."""
    left = scale_factors(_lengths_in_float64(first))
    right = left if second is first else scale_factors(_lengths_in_float64(second))
    products = torch.zeros(len(first), len(second), dtype=torch.float64, device=first.device)
    for part, other in zip(first.split(_CHUNK, dim=1), second.split(_CHUNK, dim=1), strict=True):
        scaled = left.to(part).unsqueeze(1) * part
        products += scaled @ (scaled if second is first else right.to(other).unsqueeze(1) * other).T
    return products / left.unsqueeze(1) / right


def _in_range(found: Tensor) -> bool:
    return bool(((found > SMALLEST_SQUARE**0.5) & (found < LARGEST_SQUARE**0.5)).all())


def _factors(jacobian: Tensor) -> Tensor:
    return scale_factors(jacobian.abs().amax(dim=1))
