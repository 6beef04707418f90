"""Sums of task gradients, and what is added to the `.grad` of parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import Gradient
from mtlrun.gradients.task_gradients import PartialGradient, Sharing
from mtlrun.weightings.precision import promoted


def weighted_sum(gradients: list[Gradient], weights: list[float]) -> Gradient:
    """Return sum_k weights_k gradients_k, in new tensors, since autograd may hand out one tensor for two inputs."""
    total = list(torch._foreach_mul([promoted(part) for part in gradients[0]], weights[0]))
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        torch._foreach_add_(total, [promoted(part) for part in gradient], alpha=weight)
    return [part.to(like.dtype) for part, like in zip(total, gradients[0], strict=True)]


def split_like(direction: Tensor, gradient: Gradient) -> Gradient:
    """Return a direction [P], split and shaped as a task gradient."""
    pieces = direction.split([part.numel() for part in gradient])
    return [piece.view_as(part).to(part.dtype) for piece, part in zip(pieces, gradient, strict=True)]


def add_task_grads(sharing: Sharing, gradients: list[PartialGradient], factors: list[float]) -> None:
    """Add each task's gradient times its factor to the `.grad` of the task's own parameters that its loss reaches."""
    for parameters, gradient, factor in zip(sharing.task_params, gradients, factors, strict=True):
        pairs = [(each, part) for each, part in zip(parameters, gradient, strict=True) if part is not None]
        if pairs:
            add_grads([each for each, _ in pairs], list(torch._foreach_mul([part for _, part in pairs], factor)))


def add_grads(parameters: Sequence[nn.Parameter], grads: Gradient) -> None:
    """Add to `.grad`, which may already hold the regularizer's gradient."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad
