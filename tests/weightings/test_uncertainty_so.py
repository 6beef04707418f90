"""Soft optimal uncertainty weighting."""

from math import exp

import pytest
import torch

from mtlrun.weightings import Uncertainty, UncertaintySO, combine

LOSSES = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)


def weights(weighting, losses=LOSSES):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), losses)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_weights_are_the_softmax_of_one_over_the_losses(temperature):
    powers = [exp(1 / loss / temperature) for loss in (0.5, 1.0, 4.0)]
    expected = [power / sum(powers) for power in powers]
    assert weights(UncertaintySO(temperature)).tolist() == pytest.approx(expected, rel=1e-6)


def test_objective_is_the_weighted_sum_of_the_losses():
    powers = [exp(2), exp(1), exp(0.25)]
    expected = (powers[0] * 0.5 + powers[1] + powers[2] * 4) / sum(powers)
    assert UncertaintySO().objective(LOSSES).item() == pytest.approx(expected, rel=1e-6)


def test_weights_at_a_high_temperature_are_equal():
    assert weights(UncertaintySO(1e9)).tolist() == pytest.approx([1 / 3] * 3, abs=1e-6)


def test_weights_at_a_low_temperature_are_those_of_the_smallest_loss_alone():
    assert weights(UncertaintySO(1e-3)).tolist() == pytest.approx([1, 0, 0])


def test_logarithms_of_the_weights_differ_as_the_optimal_weights_of_uncertainty_do():
    uncertainty = Uncertainty()
    uncertainty.setup(3)
    uncertainty.log_variance.data = LOSSES.log()
    optimal = 2 * weights(uncertainty)
    found = weights(UncertaintySO(2.0)).log()
    torch.testing.assert_close(found.diff(), optimal.diff() / 2.0, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [0.0, 1e-30, 1e-6, 1e8])
def test_very_small_and_very_large_losses_give_finite_weights(loss):
    found = weights(UncertaintySO(), torch.tensor([loss, 1.0], dtype=torch.float64))
    assert found.isfinite().all()
    assert found.sum().item() == pytest.approx(1)


def test_weights_are_shared_among_the_tasks_of_the_batch(take_step):
    weighting = UncertaintySO()
    weighting.setup(3)
    found = take_step(weighting, torch.eye(2), torch.tensor([1.0, 1.0]), active=[0, 2])
    assert found.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_temperature_that_is_not_positive_is_refused(wrong):
    with pytest.raises(ValueError, match=f"temperature must be > 0, found {wrong}"):
        UncertaintySO(wrong)
