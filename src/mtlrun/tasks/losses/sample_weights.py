"""Sample weights: how much each sample counts in the mean loss of a batch."""

from collections.abc import Callable
from weakref import WeakSet

import torch
from torch import Tensor

from mtlrun.tasks.base import Task


def sample_weighted_loss(task: Task, prediction: Tensor, target: Tensor, sample_weights: Tensor) -> Tensor:
    """Return a task's loss with sample i counted w_i times: sum w_i n_i l_i / sum w_i n_i. Shape [].

    l_i is the loss of sample i alone, from `task.loss`, so that no task has to implement weighting, and n_i its
    `num_terms`: the number of pixels that it averages, for example, or the sum of their class weights.

    Args:
        task: defines the loss.
        prediction: of labeled samples, [n, ...].
        target: [n, ...].
        sample_weights: w, > 0, [n].
    """
    losses, terms = sample_losses(task, prediction, target)
    weights = sample_weights * terms
    return (weights.to(losses.dtype) * losses).sum() / weights.sum().to(losses.dtype)


def sample_losses(task: Task, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each sample alone, and the number of terms that it averages, both [n]."""
    return _per_sample(task, task.loss, prediction, target), _num_terms(task, target)


def num_weighted_terms(task: Task, target: Tensor, sample_weights: Tensor) -> Tensor:
    """Return `task.num_terms` with sample i counted w_i times: the sum of the weights in `sample_weighted_loss`, []."""
    return (sample_weights * _num_terms(task, target)).sum()


def _num_terms(task: Task, target: Tensor) -> Tensor:
    """Return the number of terms that the loss of each sample averages, [n]."""

    def of_one(sample: Tensor) -> Tensor:
        terms = task.num_terms(sample)
        return terms if isinstance(terms, Tensor) else torch.full((), terms, device=target.device)

    return _per_sample(task, of_one, target)


#: Tasks whose loss, or number of terms, vmap was tried for in vain.
_looped: WeakSet[Task] = WeakSet()


def _per_sample(task: Task, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Return the value of a function of batches for each sample, as a batch of one, [n].

    Args:
        task: that the function is of.
        function: of batches.
        arguments: [n, ...] each.
    """

    def of_one(*sample: Tensor) -> Tensor:
        return function(*(part[None] for part in sample))

    if task not in _looped:
        try:
            return torch.vmap(of_one)(*arguments)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError:  # vmap cannot follow what depends on values, or has no batching rule; a loop is slower
            _looped.add(task)
    return torch.stack([of_one(*sample) for sample in zip(*arguments, strict=True)])
