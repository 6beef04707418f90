"""Lookahead affinity: what a gradient step on one task's loss does to the losses of the other tasks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def lookahead_affinity(
    losses: Callable[[], Sequence[Tensor]], shared: Sequence[nn.Parameter], rates: Sequence[float]
) -> Tensor:
    """Return the affinities [K, K] of K tasks on one batch, in float64 on the CPU.

    Source: Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning" (NeurIPS 2021), equation 1:

        Z[i, j] = 1 - L_j(theta - rate * gradient of L_i) / L_j(theta)

    where theta are the shared parameters; those of the tasks stay as they are. Z[i, j] > 0: a step of task i helps
    task j. Z[i, j] < 0: it hurts. The step is one of plain gradient descent, whatever the optimizer is. Z[i, j] is NaN
    where L_j(theta) is 0.

    Costs K backward passes and K + 1 forward passes, and memory for K gradients. The parameters are afterwards what
    they were, bit by bit; buffers and random numbers are up to the caller.

    Args:
        losses: computes the K losses at the present values of the parameters, each time with the same random numbers.
        shared: the parameters that the losses share.
        rates: the learning rate of each of them.

    Raises:
        ValueError: there are no shared parameters, or not as many rates.
    """
    if not shared or len(shared) != len(rates):
        raise ValueError(f"shared must list one or more parameters, and rates one for each, found {len(shared)} and "
                         f"{len(rates)}")  # fmt: skip
    before = list(losses())
    steps = [_step(loss, shared, rates, retain_graph=loss is not before[-1]) for loss in before]
    values = _values(before)
    del before  # and the graph, before parameters change
    start = [parameter.detach().clone() for parameter in shared]
    after = []
    with torch.no_grad():
        for step in steps:
            try:
                for parameter, change in zip(shared, step, strict=True):
                    if change is not None:
                        parameter.add_(change)
                after.append(_values(losses()))
            finally:
                for parameter, value in zip(shared, start, strict=True):
                    parameter.copy_(value)
    return torch.where(values != 0, 1 - torch.stack(after) / values, torch.nan)


def _step(
    loss: Tensor, shared: Sequence[nn.Parameter], rates: Sequence[float], *, retain_graph: bool
) -> list[Tensor | None]:
    """Return the change of each shared parameter; None for those that the loss does not reach."""
    gradients = torch.autograd.grad(loss, shared, retain_graph=retain_graph, allow_unused=True)
    return [None if gradient is None else gradient.mul_(-rate) for gradient, rate in zip(gradients, rates, strict=True)]


def _values(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack([loss.detach().double() for loss in losses]).cpu()
