"""MoCo, against the recursion of the paper written out with a general solver for the projection."""

import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import MGDA, MoCo, combine
from mtlrun.weightings.moco import project_on_simplex


def random_jacobian(seed=0):
    return torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(**options):
    weighting = MoCo(**options)
    weighting.setup(3)
    return weighting


def nearest_on_simplex(point):
    size = len(point)
    result = minimize(
        lambda weights: ((weights - point.numpy()) ** 2).sum(),
        [1 / size] * size,
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-16, "maxiter": 500},
    )
    return torch.from_numpy(result.x)


@pytest.mark.parametrize(
    "options", [{}, {"beta": 1.0, "beta_decay": 0.0, "gamma": 0.3, "gamma_decay": 1.0, "rho": 0.5}]
)
def test_directions_follow_the_recursion_of_the_paper(options):
    weighting = make(**options)
    tracked, weights = torch.zeros(3, 5, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    for step in range(1, 8):
        jacobian = random_jacobian(step)
        tracked = tracked - weighting.beta / step**weighting.beta_decay * (tracked - jacobian)
        torch.testing.assert_close(combine(weighting, jacobian), tracked.T @ weights, rtol=0, atol=1e-5)
        slopes = (tracked @ tracked.T + weighting.rho * torch.eye(3)) @ weights
        weights = nearest_on_simplex(weights - weighting.gamma / step**weighting.gamma_decay * slopes)
    assert (weighting.simplex_weights.values - 1 / 3).abs().max() > 0.02


def test_weights_come_to_those_of_mgda_when_the_gradients_stay():
    jacobian = random_jacobian(4)
    weighting = make(gamma=0.05, gamma_decay=0.0)
    for _ in range(3000):
        direction = combine(weighting, jacobian)
    expected = combine(MGDA(), jacobian)
    torch.testing.assert_close(direction, expected, rtol=0, atol=2e-2)


def test_gamma_of_zero_keeps_the_weights_equal():
    weighting = make(beta=1.0, beta_decay=0.0, gamma=0.0)
    combine(weighting, random_jacobian())
    torch.testing.assert_close(combine(weighting, random_jacobian(1)), random_jacobian(1).mean(dim=0))


def test_rho_pulls_the_weights_together():
    spreads = []
    for rho in (0.0, 10.0):
        weighting = make(gamma=0.05, gamma_decay=0.0, rho=rho)
        for step in range(50):
            combine(weighting, random_jacobian(step))
        spreads.append(weighting.simplex_weights.values.std())
    assert spreads[1] < 0.5 * spreads[0]


def test_normalized_gradients_have_the_length_of_their_losses():
    weighting = make(beta=1.0, normalize=True)
    losses = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    combine(weighting, random_jacobian(), losses)
    torch.testing.assert_close(weighting.averages.vectors.norm(dim=1), losses)
    assert weighting.needs_positive_losses
    assert not make().needs_positive_losses


def test_tasks_with_a_loss_share_out_their_part_of_the_weights(take_step):
    weighting = make(beta=1.0)
    weighting.simplex_weights.values[:] = torch.tensor([0.1, 0.6, 0.3])
    direction = take_step(weighting, torch.eye(2, dtype=torch.float64), torch.ones(2), active=[0, 2])
    torch.testing.assert_close(direction, torch.tensor([0.25, 0.75], dtype=torch.float64), rtol=0, atol=1e-6)
    assert weighting.simplex_weights.values[1] == torch.tensor(0.6)
    assert weighting.simplex_weights.values.sum().item() == pytest.approx(1)
    assert weighting.simplex_weights.values[0] > 0.1


def test_task_whose_weight_is_zero_is_trained_where_it_is_the_only_one_with_a_loss(take_step):
    weighting = make(beta=1.0)
    weighting.simplex_weights.values[:] = torch.tensor([0.0, 1.0, 0.0])
    direction = take_step(weighting, torch.tensor([[2.0, 4.0]]), torch.ones(1), active=[0])
    assert direction.tolist() == [2, 4]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_projection_on_the_simplex_is_the_nearest_point(size):
    for seed in range(5):
        point = 2 * torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(project_on_simplex(point), nearest_on_simplex(point), rtol=0, atol=1e-6)


def test_projection_of_huge_entries_keeps_the_largest():
    assert project_on_simplex(torch.tensor([-1e16, -3e16, -2e16], dtype=torch.float64)).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [("beta", 0.0), ("beta", 1.5), ("beta_decay", -1.0), ("gamma", -0.1), ("gamma_decay", -1.0), ("rho", -0.1)],
)
def test_arguments_out_of_bounds_are_refused(argument, wrong):
    with pytest.raises(ValueError, match=f"{argument} must be .*, found {wrong}"):
        MoCo(**{argument: wrong})
