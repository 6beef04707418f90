"""Weights of samples: how much each one counts in the means that losses are."""

from collections.abc import Callable

import torch
from torch import Tensor

from mtlrun.tasks.base import Task


def weighted_loss(task: Task, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of a task's loss in which sample i counts weights[i] times: sum w_i l_i / sum w_i. Shape [].

    The loss of each sample on its own is taken from `task.loss`, so that no task has to say it twice. Where that is a
    mean over several terms of a sample, pixels say, or these have weights by class, all goes on as it is.

    Args:
        task: gives the loss.
        prediction: of labeled samples, [n, ...].
        target: [n, ...].
        weights: [n], > 0.
    """
    losses = _one_by_one(lambda *sample: task.loss(*sample), prediction, target)
    shares = weights * _terms(task, target)
    return (shares.to(losses.dtype) * losses).sum() / shares.sum().to(losses.dtype)


def num_weighted_terms(task: Task, target: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the weights of what `weighted_loss` is a mean of, []."""
    return (weights * _terms(task, target)).sum()


def _terms(task: Task, target: Tensor) -> Tensor:
    """Return of how many terms each sample's loss is a mean, [n]."""
    return _one_by_one(lambda sample: torch.as_tensor(task.num_terms(sample), device=target.device), target)


def _one_by_one(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Return what a function of batches gives for each sample as a batch of its own, [n]."""

    def alone(*sample: Tensor) -> Tensor:
        return function(*(part[None] for part in sample))

    try:
        return torch.vmap(alone)(*arguments)
    except RuntimeError:  # what depends on values, or has no rule, vmap cannot follow; slower, and the same
        return torch.stack([alone(*sample) for sample in zip(*arguments, strict=True)])
