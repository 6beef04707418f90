"""Geometric loss strategy."""

import pytest
import torch

from mtlrun.weightings import GLS, ScaleInvariant, combine

JACOBIAN = torch.tensor([[-4.0, 1, 1], [6, 1, 1], [0, 2, 0]], dtype=torch.float64)
LOSSES = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)


def test_objective_is_the_geometric_mean():
    assert GLS().objective(LOSSES).item() == pytest.approx(2.0)
    assert GLS().objective(torch.tensor([9.0, 4.0])).item() == pytest.approx(6.0)


def test_weights_are_the_mean_over_the_number_of_tasks_and_the_loss():
    found = combine(GLS(), torch.eye(3, dtype=torch.float64), LOSSES)
    assert found.tolist() == pytest.approx([2 / (3 * 0.5), 2 / (3 * 2), 2 / (3 * 8)], rel=1e-6)


def test_gradient_is_that_of_the_root_of_the_product():
    leaf = LOSSES.clone().requires_grad_()
    expected = torch.autograd.grad(leaf.prod() ** (1 / 3), leaf)[0]
    torch.testing.assert_close(combine(GLS(), JACOBIAN, LOSSES), expected @ JACOBIAN, rtol=1e-6, atol=1e-6)


def test_gradient_is_a_multiple_of_that_of_scale_invariant():
    expected = 2.0 / 3 * combine(ScaleInvariant(), JACOBIAN, LOSSES)
    torch.testing.assert_close(combine(GLS(), JACOBIAN, LOSSES), expected, rtol=1e-6, atol=1e-6)


def test_forty_small_losses_in_single_precision_have_a_mean():
    assert GLS().objective(torch.full((40,), 1e-3)).item() == pytest.approx(1e-3, rel=1e-4)  # their product is 1e-120


def test_mean_is_over_the_tasks_of_the_batch(take_step):
    weighting = GLS()
    weighting.setup(3)
    found = take_step(weighting, torch.eye(2), torch.tensor([4.0, 9.0]), active=[0, 2])
    assert found.tolist() == pytest.approx([6 / (2 * 4), 6 / (2 * 9)])


def test_a_loss_of_zero_gives_a_finite_direction():
    assert combine(GLS(), JACOBIAN, torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)).isfinite().all()
