"""Sums of task gradients, and what is added to the `.grad` of parameters."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import Gradient, Joined
from mtlrun.gradients.task_gradients import PartialGradient, Sharing
from mtlrun.weightings.precision import promoted

# Numbers up to this one are multiplied with float32 tensors as they are.
_LARGEST_FACTOR = 1e30
# Gradients with fewer entries are put together before their norm is taken.
_SMALL = 2**14


def weighted_sum(gradients: list[Gradient], weights: list[float], joined: Joined | None = None) -> Gradient:
    """Return sum_k weights_k gradients_k, in new tensors, since autograd may hand out one tensor for two inputs.

    Args:
        gradients: a tensor per parameter each.
        weights: K numbers.
        joined: the small tensors of the gradients, where these are put together already.
    """
    like = gradients[0]
    if joined is None or max(map(abs, weights)) > _LARGEST_FACTOR:
        return _sum_of(gradients, weights)
    found = joined.weighted_sum(weights, like)
    large = [place for place in range(len(like)) if place not in found]
    if large:
        parts = _sum_of([[gradient[place] for place in large] for gradient in gradients], weights)
        found |= dict(zip(large, parts, strict=True))
    return [found[place] for place in range(len(like))]


def _sum_of(gradients: list[Gradient], weights: list[float]) -> Gradient:
    total = _times(weights[0], [promoted(part) for part in gradients[0]])
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        parts = [promoted(part) for part in gradient]
        if abs(weight) > _LARGEST_FACTOR:
            parts, weight = _times(weight, parts), 1.0
        torch._foreach_add_(total, parts, alpha=weight)
    return [part.to(like.dtype) for part, like in zip(total, gradients[0], strict=True)]


def split_like(direction: Tensor, inputs: Sequence[Tensor]) -> Gradient:
    """Return a direction [P], split and shaped as a gradient with respect to `inputs`."""
    pieces = direction.split([tensor.numel() for tensor in inputs])
    return [piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in zip(pieces, inputs, strict=True)]


def add_task_grads(sharing: Sharing, gradients: list[PartialGradient], factors: list[float] | Tensor) -> None:
    """Add each task's gradient times its factor to the `.grad` of the task's own parameters that its loss reaches.

    Args:
        sharing: the parameters.
        gradients: of the tasks.
        factors: [K]; a tensor is on the device of the gradients.
    """
    if not isinstance(factors, Tensor) and factors.count(1.0) == len(factors):
        pairs = list(zip(chain(*sharing.task_params), chain(*gradients), strict=True))
        reached = [each for each, part in pairs if part is not None]
        parts = [part for _, part in pairs if part is not None]
        if _is_unshared(parts):
            add_grads(reached, parts)
            return
    for parameters, gradient, factor in zip(sharing.task_params, gradients, factors, strict=True):
        pairs = [(each, part) for each, part in zip(parameters, gradient, strict=True) if part is not None]
        if pairs:
            add_grads([each for each, _ in pairs], _times(factor, [part for _, part in pairs if part is not None]))


def _is_unshared(parts: Gradient) -> bool:
    """Return True if no two tensors share memory.

    Autograd may hand out one tensor as the gradient of two parameters, and gradients are clipped in place.
    """
    pointers = {part.data_ptr() for part in parts if part.is_contiguous()}
    return len(pointers) == len(parts)


def _times(factor: float | Tensor, gradient: Gradient) -> Gradient:
    """Return a gradient times a factor in new tensors; that of a very short gradient may exceed float32."""
    if isinstance(factor, Tensor):
        return list(torch._foreach_mul(gradient, factor.to(gradient[0].dtype)))
    if abs(factor) <= _LARGEST_FACTOR:
        return list(torch._foreach_mul(gradient, factor))
    return list(torch._foreach_mul(torch._foreach_mul(gradient, _LARGEST_FACTOR), factor / _LARGEST_FACTOR))


def clip_shared(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scale the `.grad` of parameters so that their norm, all together, is at most `max_norm`."""
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm_of_grads(parameters))


def norm_of_grads(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of the `.grad` of parameters in float64, since float32 may not hold the squares of entries."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return torch.zeros((), dtype=torch.float64, device=parameters[0].device if parameters else None)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, dtype=torch.float64)))
    return norm


def quick_norm_of_grads(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of the `.grad` of parameters in their precision; infinite or NaN where that does not hold it."""
    small, squares = [], []
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None and grad.numel() < _SMALL:
            small.append(grad)  # many calls cost more than a copy
        elif grad is not None:
            squares.append(torch.linalg.vector_norm(grad).square())
    if small:
        joined: Tensor = torch._C._nn.flatten_dense_tensors(small)
        squares.append(joined.dot(joined))
    if not squares:
        return torch.zeros(())
    return (squares[0] if len(squares) == 1 else torch.stack(squares).sum()).sqrt()


def add_grads(parameters: Sequence[nn.Parameter], grads: Gradient) -> None:
    """Add to `.grad`, which may already hold the regularizer's gradient.

    A `.grad` lies in memory as its parameter does. Autograd sees to that in `backward`, but not in `grad`, and
    PyTorch's fused optimizers on the CPU would take the entries in another order without a word.
    """
    for parameter, grad in zip(parameters, grads, strict=True):
        if grad.stride() != parameter.stride():
            grad = torch.empty_like(parameter).copy_(grad)
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad
