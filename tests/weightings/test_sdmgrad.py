"""SDMGrad: projected steps with momentum, checked against the minimum that they head for."""

import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import SDMGrad, combine


def jacobian(num_tasks=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, 6, dtype=torch.float64, generator=generator)


def make(num_tasks=3, **options):
    weighting = SDMGrad(**options)
    weighting.setup(num_tasks)
    return weighting


@pytest.mark.parametrize("preference", [0.0, 0.3, 2.0])
def test_many_small_steps_reach_the_minimum_of_the_objective(preference):
    rows = jacobian()
    mean = rows.mean(dim=0)
    found = combine(make(preference=preference, inner_steps=3000, step_size=0.05, momentum=0.0), rows)

    def objective(weights):
        return 0.5 * float((torch.from_numpy(weights) @ rows + preference * mean).square().sum())

    simplex = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    best = minimize(objective, [1 / 3] * 3, bounds=[(0, 1)] * 3, constraints=simplex, tol=1e-14).x
    expected = (torch.from_numpy(best) @ rows + preference * mean) / (1 + preference)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_one_step_takes_the_products_of_two_parts_and_the_direction_of_the_third():
    first, second, third = (jacobian(2, seed) for seed in range(3))
    weighting = make(2, inner_steps=1, step_size=0.01, preference=0.5)
    direction = weighting.combine_parts([first, second, third], torch.ones(3, 2))
    products = first @ second.T
    products = products / products.diagonal().abs().sqrt().mean() ** 2
    half = torch.full((2,), 0.5, dtype=torch.float64)
    moved = half - 0.01 * (products @ half + 0.5 * products.mean(dim=1))
    weights = moved + (1 - moved.sum()) / 2  # the projection, as long as it stays inside
    torch.testing.assert_close(weighting.simplex_weights.values, weights)
    torch.testing.assert_close(direction, (weights @ third + 0.5 * third.mean(dim=0)) / 1.5)


def test_a_large_preference_gives_the_mean():
    rows = jacobian()
    torch.testing.assert_close(combine(make(preference=1e9), rows), rows.mean(dim=0))


@pytest.mark.parametrize(
    ("argument", "value"), [("preference", -1), ("inner_steps", 0), ("step_size", 0), ("momentum", 1)]
)
def test_bounds_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .* found {value}"):
        SDMGrad(**{argument: value})
