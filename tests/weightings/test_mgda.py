"""MGDA, against independent solvers."""

from itertools import product

import numpy
import pytest
import torch
from scipy.optimize import minimize

from mtlrun.weightings import MGDA, combine


def random_jacobian(num_tasks, seed, common=0.0):
    """Rows of different lengths; the larger `common`, the more they agree."""
    random = numpy.random.default_rng(seed)
    rows = random.normal(size=(num_tasks, 8)) + common * random.normal(size=8)
    return torch.tensor(rows * numpy.exp(random.normal(size=(num_tasks, 1))))


def weigh(weighting, jacobian, losses=None):
    losses = torch.ones(len(jacobian), dtype=torch.float64) if losses is None else losses
    weighting.setup(len(jacobian))
    return weighting.task_weights(jacobian @ jacobian.T, losses)


def smallest_squared_norm(jacobian):
    gram = (jacobian @ jacobian.T).numpy()
    num_tasks = len(gram)
    starts = [numpy.full(num_tasks, 1 / num_tasks), *numpy.eye(num_tasks)]
    results = [
        minimize(
            lambda weights: weights @ gram @ weights / numpy.trace(gram),
            start,
            jac=lambda weights: 2 * gram @ weights / numpy.trace(gram),
            method="SLSQP",
            bounds=[(0, 1)] * num_tasks,
            constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        for start in starts
    ]
    return min(result.fun for result in results) * numpy.trace(gram)


def test_direction_of_the_published_example():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    assert combine(MGDA(), jacobian).tolist() == pytest.approx([0, 1, 1], abs=1e-12)
    assert weigh(MGDA(), jacobian).tolist() == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_are_solved_in_closed_form(seed):
    first, second = jacobian = random_jacobian(2, seed, common=1.0)
    share = ((second - first) @ second / (first - second).square().sum()).clamp(0, 1).item()
    assert weigh(MGDA(), jacobian).tolist() == pytest.approx([share, 1 - share], abs=1e-12)


def test_closed_form_is_tested_at_both_ends_and_between():
    shares = [weigh(MGDA(), random_jacobian(2, seed, common=1.0))[0].item() for seed in range(20)]
    assert 0 in shares
    assert 1 in shares
    assert any(0 < share < 1 for share in shares)


@pytest.mark.parametrize("num_tasks", [3, 5, 8])
@pytest.mark.parametrize("common", [0.0, 2.0])
def test_norm_is_the_smallest_that_a_general_solver_finds(num_tasks, common):
    for seed in range(4):
        jacobian = random_jacobian(num_tasks, seed, common)
        found = (weigh(MGDA(), jacobian) @ jacobian).square().sum().item()
        assert found - smallest_squared_norm(jacobian) <= 1e-9 * jacobian.square().sum().item() / num_tasks


def test_norm_is_the_smallest_on_a_grid_of_weights():
    jacobian = random_jacobian(3, 5)
    found = (weigh(MGDA(), jacobian) @ jacobian).square().sum()
    steps = torch.linspace(0, 1, 101, dtype=torch.float64).tolist()
    grid = torch.tensor([[a, b, 1 - a - b] for a, b in product(steps, steps) if a + b <= 1], dtype=torch.float64)
    assert found <= (grid @ jacobian).square().sum(dim=1).min() + 1e-12


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_weights_are_not_negative_and_sum_to_one(num_tasks):
    for seed in range(5):
        weights = weigh(MGDA(), random_jacobian(num_tasks, seed))
        assert (weights >= 0).all()
        assert weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_direction_conflicts_with_no_task(num_tasks):
    for seed in range(5):
        jacobian = random_jacobian(num_tasks, seed)
        direction = combine(MGDA(), jacobian)
        slack = 1e-12 * jacobian.square().sum()
        assert (jacobian @ direction >= direction.square().sum() - slack).all()


def test_gradients_that_cancel_give_a_direction_of_zeros():
    jacobian = torch.tensor([[1.0, 0], [-0.5, 0.8], [-0.5, -0.8]], dtype=torch.float64)
    assert combine(MGDA(), jacobian).norm() < 1e-6


def test_l2_compares_unit_gradients_and_applies_the_weights_to_the_whole_ones():
    jacobian = torch.tensor([[1.0, 0], [0, 100]], dtype=torch.float64)
    assert weigh(MGDA("l2"), jacobian).tolist() == pytest.approx([0.5, 0.5])
    assert combine(MGDA("l2"), jacobian).tolist() == pytest.approx([0.5, 50])
    assert weigh(MGDA("none"), jacobian)[0] > 0.999


def test_loss_divides_the_gradients_by_their_losses():
    jacobian, losses = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    # Lengths 1 and 1/2, at right angles: the weights go as 1 to 4.
    assert weigh(MGDA("loss"), jacobian, losses).tolist() == pytest.approx([0.2, 0.8])


def test_loss_plus_divides_by_norm_and_loss():
    jacobian = torch.tensor([[3.0, 0], [0, 7]], dtype=torch.float64)
    losses = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert weigh(MGDA("loss+"), jacobian, losses).tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize("normalization", ["l2", "loss", "loss+"])
def test_normalization_of_a_zero_gradient_and_a_zero_loss_is_finite(normalization):
    jacobian = torch.tensor([[3.0, 0], [0, 0]], dtype=torch.float64)
    weights = weigh(MGDA(normalization), jacobian, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([0, 1])


def test_frank_wolfe_stops_after_the_given_number_of_iterations():
    jacobian = random_jacobian(5, 0)
    few, many = (MGDA(solver="frank_wolfe", max_iterations=count, tolerance=1e-14) for count in (1, 2000))
    norms = [combine(weighting, jacobian).norm().item() for weighting in (few, many, MGDA())]
    assert norms[0] > norms[1] * (1 + 1e-6)
    assert norms[1] == pytest.approx(norms[2], rel=1e-3)


def test_frank_wolfe_has_the_defaults_of_the_papers_code():
    weighting = MGDA(solver="frank_wolfe")
    assert (weighting.max_iterations, weighting.tolerance) == (250, 1e-5)


@pytest.mark.parametrize("argument", ["max_iterations", "tolerance"])
def test_arguments_that_are_not_positive_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be .* found 0"):
        MGDA(solver="frank_wolfe", **{argument: 0})


@pytest.mark.parametrize("argument", ["max_iterations", "tolerance"])
def test_arguments_of_the_other_solver_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be null with solver=exact"):
        MGDA(**{argument: 1})
