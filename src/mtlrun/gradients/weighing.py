"""From task gradients to their weights."""

import math

import torch
from torch import Tensor

from mtlrun.gradients.task_gradients import TaskGradients
from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.capabilities import SeesSampleNorms
from mtlrun.weightings.inner_products import refuse_non_finite
from mtlrun.weightings.transfer import waited_for


def weigh(weighting: GradientWeighting, gradients: TaskGradients, losses: Tensor) -> tuple[list[float], Tensor]:
    """Return the weights of the task gradients and their inner products [K, K], and let the method keep the weights.

    The one copy from the device holds all that a solver may use.

    Args:
        weighting: the method.
        gradients: of all tasks that have a loss.
        losses: theirs [K], as the method sees them, without graph.

    Raises:
        NonFiniteGradientError: before the method is asked.
    """
    num_tasks = len(gradients.compared)
    seen = [gradients.inner_products().flatten(), losses.double()]
    sees_samples = isinstance(weighting, SeesSampleNorms) and weighting.needs_sample_norms
    if sees_samples:
        seen.append(gradients.sample_norms().flatten())
    products, values, *norms = waited_for(torch.cat(seen)).split([len(part) for part in seen])
    gram = gradients.within_range(products.view(num_tasks, num_tasks))
    refuse_non_finite([math.isfinite(square) for square in gram.diagonal().tolist()])
    if sees_samples:
        assert isinstance(weighting, SeesSampleNorms)
        weighting.observe_sample_norms(norms[0].view(num_tasks, -1))
    factors = weighting.task_weights(gram, values).tolist()
    weighting.keep(factors)
    return factors, gram
