"""UPGrad, against projections of the vectors themselves."""

import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import PCGrad, UPGrad, combine


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, num_tasks + 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nearest_without_conflict(jacobian, vector):
    """The nearest vector d to the given one with G d >= 0, by a general solver on d itself."""
    rows, aim = jacobian.numpy(), vector.numpy()
    result = minimize(
        lambda direction: ((direction - aim) ** 2).sum(),
        aim,
        jac=lambda direction: 2 * (direction - aim),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda direction: rows @ direction, "jac": lambda direction: rows},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return torch.from_numpy(result.x)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_direction_is_the_mean_of_the_nearest_vectors_that_conflict_with_no_task(num_tasks):
    for seed in range(5):
        jacobian = random_jacobian(num_tasks, seed)
        expected = torch.stack([nearest_without_conflict(jacobian, row) for row in jacobian]).mean(dim=0)
        torch.testing.assert_close(combine(UPGrad(regularization=0), jacobian), expected, rtol=0, atol=1e-6)


def test_two_tasks_are_those_of_pcgrad():
    for seed in range(10):
        jacobian = random_jacobian(2, seed)
        expected = combine(PCGrad(), jacobian)
        torch.testing.assert_close(combine(UPGrad(regularization=0), jacobian), expected / 2)
        torch.testing.assert_close(combine(UPGrad(regularization=0, reduction="sum"), jacobian), expected)
        torch.testing.assert_close(combine(UPGrad(), jacobian), expected / 2, rtol=0, atol=2e-3)


def test_direction_of_the_published_example():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    # Half of what pcgrad makes of it.
    assert combine(UPGrad(regularization=0), jacobian).tolist() == pytest.approx([0.2924, 1.9006, 1.9006], abs=5e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 6, 40])
def test_direction_conflicts_with_no_task(num_tasks):
    for seed in range(5):
        jacobian = random_jacobian(num_tasks, seed)
        products = jacobian @ combine(UPGrad(regularization=0), jacobian)
        assert products.min() >= -1e-9


def test_gradients_without_conflict_are_averaged():
    jacobian = random_jacobian(4).abs()
    torch.testing.assert_close(combine(UPGrad(), jacobian), jacobian.mean(dim=0))


def test_opposite_gradients_cancel():
    jacobian = torch.tensor([[1.0, 2], [-3, -6]], dtype=torch.float64)
    assert combine(UPGrad(regularization=0), jacobian).abs().max() < 1e-12
    assert combine(UPGrad(), jacobian).abs().max() < 1e-2


def test_no_projection_of_ordinary_gradients_falls_back():
    weighting = UPGrad()
    for seed in range(20):
        combine(weighting, random_jacobian(6, seed))
    assert weighting.fallbacks == 0


def test_a_projection_that_fails_is_counted(monkeypatch):
    monkeypatch.setattr("mtlrun.weightings.upgrad.project_on_dual_cone", lambda gram, start, _: (start, False))
    weighting = UPGrad()
    combine(weighting, random_jacobian(3))
    assert weighting.fallbacks == 1


def test_regularization_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"regularization must be >= 0, found -1"):
        UPGrad(regularization=-1)
    with pytest.raises(ValueError, match=r"reduction must be one of .* found 'max'"):
        UPGrad(reduction="max")
