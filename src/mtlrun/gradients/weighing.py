"""From task gradients to their weights."""

import math

import torch
from torch import Tensor

from mtlrun.gradients.task_gradients import TaskGradients
from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.capabilities import SeesSampleNorms
from mtlrun.weightings.inner_products import refuse_non_finite


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
    sent = torch.cat([gradients.inner_products().flatten(), losses.double()]).cpu()
    gram = gradients.within_range(sent[: num_tasks**2].view(num_tasks, num_tasks))
    refuse_non_finite([math.isfinite(square) for square in gram.diagonal().tolist()])
    if isinstance(weighting, SeesSampleNorms) and weighting.needs_sample_norms:
        weighting.observe_sample_norms(gradients.sample_norms().cpu())
    factors = weighting.task_weights(gram, sent[num_tasks**2 :]).tolist()
    weighting.keep(factors)
    return factors, gram
