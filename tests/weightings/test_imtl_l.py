"""IMTL-L."""

from math import exp

import numpy
import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import IMTLL, Uncertainty, combine

LOSSES = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
SCALES = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)


def make(log_scale=None, **options):
    weighting = IMTLL(**options)
    weighting.setup(3)
    if log_scale is not None:
        weighting.log_scale.data = torch.as_tensor(log_scale, dtype=torch.float64)
    return weighting


def weights(weighting):
    return combine(weighting, torch.eye(3, dtype=torch.float64), LOSSES)


def test_objective_at_the_start_is_the_sum_of_the_losses():
    assert make().objective(LOSSES).item() == pytest.approx(5.3)
    assert weights(make()).tolist() == [1, 1, 1]


def test_objective_equals_the_formula_written_out():
    expected = exp(0.4) * 0.3 - 0.4 + exp(-1.0) * 1.0 + 1.0 + exp(2.0) * 4.0 - 2.0
    assert make(SCALES).objective(LOSSES).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_with_respect_to_the_scale_is_the_weighted_loss_minus_one():
    weighting = make(SCALES)
    weighting.objective(LOSSES).backward()
    torch.testing.assert_close(weighting.log_scale.grad, torch.exp(SCALES) * LOSSES - 1)


def test_it_is_twice_the_regression_form_of_uncertainty_with_the_other_sign():
    uncertainty = Uncertainty("regression")
    uncertainty.setup(3)
    uncertainty.log_variance.data = -SCALES
    torch.testing.assert_close(make(SCALES).objective(LOSSES), 2 * uncertainty.objective(LOSSES))
    torch.testing.assert_close(weights(make(SCALES)), 2 * weights(uncertainty))


def test_weighted_losses_at_the_optimum_are_one():
    optimum = minimize(lambda scale: make(scale).objective(LOSSES).item(), numpy.zeros(3), tol=1e-12).x
    torch.testing.assert_close(weights(make(optimum)) * LOSSES, torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)


def test_training_brings_all_weighted_losses_to_one(take_step):
    weighting = make(optimizer="sgd", lr=0.2)
    for _ in range(300):
        take_step(weighting, torch.eye(3, dtype=torch.float64), LOSSES)
    torch.testing.assert_close(weights(weighting), 1 / LOSSES, rtol=1e-4, atol=0)


def test_initial_value_holds_for_all_tasks():
    assert make(init=-0.5).log_scale.tolist() == [-0.5, -0.5, -0.5]


def test_only_tasks_with_a_loss_enter_the_objective(take_step):
    weighting = make([0.4, 7.0, 0.0], optimizer="sgd", lr=0.1)
    weighting.active = torch.tensor([0, 2])
    assert weighting.objective(torch.tensor([3.0, 5.0])).item() == pytest.approx(exp(0.4) * 3 - 0.4 + 5)
    take_step(weighting, torch.eye(2), torch.tensor([3.0, 5.0]), active=[0, 2])
    assert weighting.log_scale.tolist() == pytest.approx([0.4 - 0.1 * (exp(0.4) * 3 - 1), 7.0, -0.4])


def test_learning_rate_is_that_of_the_optimizer_unless_given():
    assert make().lr is None
    assert make(lr=0.025).lr == 0.025
