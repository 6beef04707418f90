"""Combinations of what several models predict: means of probabilities or numbers, and votes.

All take and return averages, as `AveragesPredictions.to_average` gives them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Averages of the models, [n, ...] each -> the combined ones.
Combine = Callable[[Sequence[Tensor]], Tensor]


def mean(averages: Sequence[Tensor]) -> Tensor:
    """Return the mean over models."""
    total = averages[0].clone()
    for other in averages[1:]:
        total += other
    return total / len(averages)


def vote(averages: Sequence[Tensor], dim: int) -> Tensor:
    """Return the fractions of the votes for each class, among which the mean probability counts as one more vote.

    So the class with the most votes is the most probable one; equal numbers of votes are decided by the mean
    probability, and no class has the probability 0. Of ordered classes, each threshold is voted on, so that
    the median of the votes wins.

    Args:
        averages: probabilities of each model.
        dim: along which they add up to 1.
    """
    votes = torch.zeros_like(averages[0])
    for probabilities in averages:
        chosen = probabilities.argmax(dim=dim, keepdim=True)
        votes.scatter_add_(dim, chosen, torch.ones_like(chosen, dtype=votes.dtype))
    return (votes + mean(averages)) / (len(averages) + 1)


def same_labels(one: Tensor, other: Tensor) -> bool:
    """Return True if two tensors of targets are equal, where a missing number, NaN, equals another."""
    return (
        one.shape == other.shape
        and torch.equal(one.isnan(), other.isnan())
        and torch.equal(one.nan_to_num(nan=0.0), other.nan_to_num(nan=0.0))
    )
