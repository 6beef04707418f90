"""FairGrad, against the problem that it solves and the methods that it contains."""

import numpy
import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import MGDA, FairGrad, NashMTL, combine


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(first, second):
    return torch.cosine_similarity(first, second, dim=0).item()


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 6])
def test_alpha_one_is_nash_mtl(num_tasks, max_norm):
    jacobian = random_jacobian(num_tasks)
    fair = combine(FairGrad(alpha=1.0, max_norm=max_norm), jacobian)
    torch.testing.assert_close(fair, combine(NashMTL(max_norm=max_norm), jacobian))


@pytest.mark.parametrize("alpha", [0.5, 2.0, 4.0])
def test_weights_solve_the_equation_of_the_paper(alpha):
    jacobian = random_jacobian(4)
    weighting = FairGrad(alpha, max_norm=None)
    weights = weighting.task_weights(jacobian @ jacobian.T, torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(jacobian @ jacobian.T @ weights, weights ** (-1 / alpha), rtol=1e-5, atol=0)
    assert weighting.fallbacks == 0


@pytest.mark.parametrize("alpha", [0.5, 2.0])
@pytest.mark.parametrize("num_tasks", [2, 5])
def test_direction_maximizes_the_fair_utility_of_the_rates(num_tasks, alpha):
    jacobian = random_jacobian(num_tasks)
    direction = combine(FairGrad(alpha), jacobian)
    direction = (direction / direction.norm()).numpy()
    rows = jacobian.numpy()
    assert (rows @ direction > 0).all()

    def lost(vector):
        rates = rows @ vector / numpy.linalg.norm(vector)
        return -(numpy.maximum(rates, 1e-6) ** (1 - alpha) / (1 - alpha)).sum()

    reference = minimize(lost, direction + 0.02, method="BFGS", options={"gtol": 1e-9})
    numpy.testing.assert_allclose(direction, reference.x / numpy.linalg.norm(reference.x), atol=1e-4)


def test_small_alpha_tends_to_the_sum_and_large_alpha_to_the_shortest_combination():
    jacobian = random_jacobian(3).abs() * torch.tensor([[1.0], [2.0], [5.0]], dtype=torch.float64)
    total, shortest = jacobian.sum(dim=0), combine(MGDA(), jacobian)
    assert cosine(total, shortest) < 0.9
    assert cosine(combine(FairGrad(0.02), jacobian), total) > 0.9999
    assert cosine(combine(FairGrad(30.0), jacobian), shortest) > 0.99


def test_length_of_a_single_task_is_a_power_of_that_of_its_gradient():
    jacobian = torch.tensor([[8.0, 0.0]], dtype=torch.float64)
    # w = 8^(-4/3), d = 8^(-1/3)
    assert combine(FairGrad(2.0), jacobian).tolist() == pytest.approx([0.5, 0])
    assert combine(FairGrad(2.0), jacobian / 512).tolist() == pytest.approx([1, 0])
    assert combine(FairGrad(2.0, max_norm=None), jacobian / 512).tolist() == pytest.approx([4, 0])


def test_fairer_directions_help_the_weakest_task_more():
    jacobian = random_jacobian(3, 4) * torch.tensor([[1.0], [3.0], [9.0]], dtype=torch.float64)

    def smallest_rate(alpha):
        direction = combine(FairGrad(alpha), jacobian)
        return (jacobian @ direction / direction.norm()).min().item()

    rates = [smallest_rate(alpha) for alpha in (0.5, 1.0, 2.0, 5.0)]
    assert rates == sorted(rates)
    assert rates[-1] > 1.1 * rates[0]


def test_a_failure_of_the_solver_is_counted():
    # More than double precision holds: lengths over sixteen decades under a large alpha, in conflict.
    lengths = torch.logspace(-8, 8, 40, dtype=torch.float64)
    jacobian = torch.randn(40, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * lengths[:, None]
    weighting = FairGrad(5.0)
    assert combine(weighting, jacobian).isfinite().all()
    assert weighting.fallbacks == 1


def test_heads_are_trained_by_their_own_losses():
    assert FairGrad().head_loss == "unweighted"


@pytest.mark.parametrize(("argument", "value"), [("alpha", 0), ("alpha", -1.0), ("max_norm", 0)])
def test_arguments_that_are_not_positive_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be > 0.* found {value}"):
        FairGrad(**{argument: value})
