"""A training step on given task gradients, for all weightings alike."""

import pytest
import torch

from mtlrun.gradients import backward
from mtlrun.weightings.capabilities import ObservesPerformance, RotatesRepresentation


@pytest.fixture
def take_step():
    """Return a function that makes one step from task gradients and losses, and returns the update direction."""

    def step(weighting, jacobian, losses, active=None, lr=0.05):
        weighting.active = slice(None) if active is None else torch.tensor(active)
        parameter = torch.nn.Parameter(torch.zeros(jacobian.shape[1], dtype=jacobian.dtype))
        task_losses = [row @ parameter + loss for row, loss in zip(jacobian, losses, strict=True)]
        own_parameters = list(weighting.parameters())
        for own in own_parameters:
            own.grad = None
        for method in weighting.capable_of(ObservesPerformance):
            method.observe_performance(torch.exp(-losses))
        at_representation = getattr(weighting, "grad_wrt", "shared") == "representation"
        representation = parameter if at_representation else None
        backward(weighting, task_losses, [parameter], [[] for _ in task_losses], representation=representation)
        if own_parameters:
            torch.optim.SGD(own_parameters, lr=lr).step()
        for method in weighting.capable_of(RotatesRepresentation):
            method.on_optimizer_step()
        return parameter.grad

    return step
