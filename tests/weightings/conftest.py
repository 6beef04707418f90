"""A training step on given task gradients, for all weightings alike."""

import pytest
import torch

from mtlrun.gradients import backward
from mtlrun.weightings.capabilities import ObservesPerformance


@pytest.fixture
def take_step():
    """Return a function that makes one step from task gradients and losses, and returns the update direction."""

    def step(weighting, jacobian, losses, active=None):
        weighting.active = slice(None) if active is None else torch.tensor(active)
        parameter = torch.nn.Parameter(torch.zeros(jacobian.shape[1], dtype=jacobian.dtype))
        task_losses = [row @ parameter + loss for row, loss in zip(jacobian, losses, strict=True)]
        for method in weighting.capable_of(ObservesPerformance):
            method.observe_performance(torch.sigmoid(-losses))
        at_representation = getattr(weighting, "grad_wrt", "shared") == "representation"
        representation = parameter if at_representation else None
        backward(weighting, task_losses, [parameter], [[] for _ in task_losses], representation=representation)
        weighting.learn()
        return parameter.grad

    return step
