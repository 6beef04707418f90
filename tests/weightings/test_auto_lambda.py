"""Auto-lambda: the finite difference against the exact gradient through a step."""

import pytest
import torch
from torch import nn

from mtlrun.training.forward import untouched
from mtlrun.training.lookahead import Lookahead
from mtlrun.weightings import AutoLambda


class Problem:
    """Two quadratic losses of a vector, on two batches."""

    def __init__(self):
        self.model = nn.Linear(3, 2, bias=False).double()
        self.inputs = torch.randn(2, 4, 3, dtype=torch.float64)
        self.targets = torch.randn(2, 4, 2, dtype=torch.float64)

    def losses(self, batch, weight=None):
        weight = self.model.weight if weight is None else weight
        errors = self.inputs[batch] @ weight.T + 0.1 * (self.inputs[batch] @ weight.T) ** 3 - self.targets[batch]
        return errors.square().mean(dim=0)

    def trial(self, lr):
        return Lookahead(self.model, lr, lambda: self.losses(0), lambda: self.losses(1))


def make(**options):
    weighting = AutoLambda(**options)
    weighting.setup(2)
    return weighting.double()


@pytest.mark.parametrize("transform", ["identity", "log"])
def test_the_gradient_of_the_weights_is_that_through_a_plain_step(transform):
    problem, weighting = Problem(), make(init=0.7, loss_transform=transform)
    before = problem.model.weight.detach().clone()
    weighting.look_ahead(problem.trial(lr=0.05))
    assert torch.equal(problem.model.weight, before)

    weights = torch.full((2,), 0.7, dtype=torch.float64, requires_grad=True)
    start = before.clone().requires_grad_()
    objective = (weights * weighting.transform(problem.losses(0, start))).sum()
    (step,) = torch.autograd.grad(objective, start, create_graph=True)
    ahead = weighting.transform(problem.losses(1, start - 0.05 * step)).sum()
    (expected,) = torch.autograd.grad(ahead, weights)
    torch.testing.assert_close(weighting.task_weights.grad, expected, rtol=1e-2, atol=1e-8)
    assert expected.abs().min() > 1e-4


def test_the_objective_is_the_weighted_sum_and_does_not_train_the_weights():
    weighting = make(init=0.25)
    losses = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)
    weighting.objective(losses).backward()
    assert losses.grad.tolist() == [0.25, 0.25]
    assert weighting.task_weights.grad is None


def test_a_weight_is_held_at_zero_or_above():
    weighting = make(optimizer="sgd", lr=1.0)
    weighting.task_weights.grad = torch.tensor([1.0, -1.9], dtype=torch.float64)
    weighting.learn()
    assert weighting.task_weights.tolist() == [0.0, 2.0]


def test_a_lookahead_leaves_buffers_and_random_numbers_as_they_were_and_repeats_its_masks():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
    inputs = torch.randn(8, 3)
    state = torch.random.get_rng_state()
    trial = Lookahead(model, 0.1, lambda: model(inputs).mean(dim=0), lambda: model(inputs).mean(dim=0))
    with untouched(model):
        first, again = trial.losses(), trial.losses()
        assert torch.equal(first, again)
        assert model[0].num_batches_tracked == 2
    assert model[0].num_batches_tracked == 0
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("argument", "value"), [("init", 0), ("lr", 0)])
def test_bounds_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be > 0.* found {value}"):
        AutoLambda(**{argument: value})
