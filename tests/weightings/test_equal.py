"""Equal weights."""

import torch

from mtlrun.weightings import Equal, combine

JACOBIAN = torch.tensor([[-4.0, 1, 1], [6, 1, 1]])


def test_sum_gives_the_sum_of_the_gradients_whatever_the_losses():
    assert combine(Equal(), JACOBIAN, torch.tensor([0.1, 9.0])).tolist() == [2, 2, 2]


def test_mean_gives_the_mean_of_the_gradients():
    assert combine(Equal("mean"), JACOBIAN).tolist() == [1, 1, 1]


def test_objective_is_the_sum_or_the_mean_of_the_losses():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert Equal("sum").objective(losses) == 9
    assert Equal("mean").objective(losses) == 3


def test_mean_is_taken_over_the_tasks_that_have_a_loss(take_step):
    weighting = Equal("mean")
    weighting.setup(3)
    assert take_step(weighting, JACOBIAN, torch.ones(2), active=[0, 2]).tolist() == [1, 1, 1]
