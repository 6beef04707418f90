"""CAGrad, against both forms of its problem."""

import numpy
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from mtlrun.weightings import MGDA, CAGrad, combine
from mtlrun.weightings.cagrad import worst_case_weights

CONFLICT = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)


def random_jacobian(num_tasks, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, 10, dtype=torch.float64, generator=generator) + 0.3


def random_rows(num_tasks, seed, common):
    """Return rows of different lengths that agree the more the larger `common`."""
    random = numpy.random.default_rng(seed)
    rows = random.normal(size=(num_tasks, 2 * num_tasks + 4)) + common * random.normal(size=2 * num_tasks + 4)
    return rows * numpy.exp(random.normal(size=(num_tasks, 1)))


def best_worst_case(rows, share):
    """Return w, d, and the gap between F(w) and min_k g_k . d, relative; no w has a smaller F than the latter."""
    gram, mean = rows @ rows.T, rows.mean(axis=0)
    radius = share * numpy.linalg.norm(mean)
    weights, norm, found = worst_case_weights(gram, gram.mean(axis=1), radius)
    assert found
    direction = mean + radius * (weights @ rows) / norm
    value = mean @ (weights @ rows) + radius * numpy.linalg.norm(weights @ rows)
    gap = value - (rows @ direction).min()
    return weights, direction, gap / (numpy.linalg.norm(mean) * numpy.linalg.norm(rows, axis=1).max())


def objective(weights, gram, slopes, radius):
    return slopes @ weights + radius * numpy.sqrt(max(weights @ gram @ weights, 0))


def search(jacobian, c):
    """Return d for two tasks by a search over w, as the paper's code has it."""
    (first, second), mean = jacobian, jacobian.mean(dim=0)
    radius = c * mean.norm()

    def combination(share):
        return share * first + (1 - share) * second

    def value(share):
        return (combination(share) @ mean + radius * combination(share).norm()).item()

    best = combination(minimize_scalar(value, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}).x)
    return mean + radius * best / best.norm()


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_direction_for_two_tasks_is_that_of_a_search_over_their_weights(c):
    for jacobian in (CONFLICT, *(random_jacobian(2, seed) for seed in range(5))):
        direction = combine(CAGrad(c, rescale=0), jacobian)
        torch.testing.assert_close(direction, 2 * search(jacobian, c), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
@pytest.mark.parametrize("c", [0.4, 1.5])
def test_direction_is_the_best_in_the_ball_for_the_task_that_it_helps_least(num_tasks, c):
    jacobian = random_jacobian(num_tasks)
    rows, mean = jacobian.numpy(), jacobian.mean(dim=0).numpy()
    direction = combine(CAGrad(c, rescale=0), jacobian).numpy() / num_tasks
    radius = c * numpy.linalg.norm(mean)
    assert numpy.linalg.norm(direction - mean) == pytest.approx(radius, rel=1e-5)
    # max t with g_k . d >= t for all k and d in the ball, over (d, t)
    reference = minimize(
        lambda point: -point[-1], numpy.append(mean, (rows @ mean).min()), method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": lambda point: rows @ point[:-1] - point[-1]},
            {"type": "ineq", "fun": lambda point: radius**2 - ((point[:-1] - mean) ** 2).sum()},
        ], options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert (rows @ direction).min() == pytest.approx(-reference.fun, rel=1e-5, abs=1e-6)


def test_without_a_radius_it_is_the_sum_of_the_gradients():
    jacobian = random_jacobian(4)
    for rescale in (0, 1, 2):
        torch.testing.assert_close(combine(CAGrad(0.0, rescale), jacobian), jacobian.sum(dim=0))


def test_a_large_radius_gives_the_direction_of_mgda():
    for seed in range(3):
        jacobian = torch.cat([CONFLICT, random_jacobian(3, seed)[:, :3]])
        shortest = combine(MGDA(), jacobian)
        direction = combine(CAGrad(1e6, rescale=2), jacobian)
        if shortest.norm() > 1e-3:
            assert torch.cosine_similarity(direction, shortest, dim=0) > 1 - 1e-6
    direction = combine(CAGrad(1e6, rescale=2), CONFLICT)
    assert (direction / direction.norm()).tolist() == pytest.approx([0, 0.5**0.5, 0.5**0.5], abs=1e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 8])
def test_direction_conflicts_with_no_task_from_c_one_on(num_tasks):
    for seed in range(5):
        jacobian = torch.randn(num_tasks, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for c in (1.0, 2.0):
            direction = combine(CAGrad(c), jacobian)
            assert (jacobian @ direction >= -1e-3 * jacobian.norm(dim=1) * jacobian.mean(dim=0).norm()).all()


def test_least_helped_task_is_helped_more_than_by_the_sum():
    direction, total = combine(CAGrad(0.4, rescale=0), CONFLICT), CONFLICT.sum(dim=0)
    assert (CONFLICT @ direction).min() > (CONFLICT @ total).min() + 1


@pytest.mark.parametrize(("rescale", "divisor"), [(0, 1), (1, 1.25), (2, 1.5)])
def test_rescaling_divides_the_direction(rescale, divisor):
    jacobian = random_jacobian(3)
    plain = combine(CAGrad(0.5, rescale=0), jacobian)
    torch.testing.assert_close(combine(CAGrad(0.5, rescale=rescale), jacobian), plain / divisor)


def test_one_gradient_for_all_tasks_is_as_long_as_the_sum_under_rescale_two():
    jacobian = torch.tensor([[3.0, 4.0]], dtype=torch.float64).repeat(3, 1)
    torch.testing.assert_close(combine(CAGrad(0.5, rescale=2), jacobian), jacobian.sum(dim=0))


def test_gradients_that_sum_to_zero_give_a_direction_of_zeros():
    jacobian = torch.tensor([[1.0, 2], [-1, -2]], dtype=torch.float64)
    assert combine(CAGrad(), jacobian).norm() < 1e-7


def test_opposed_gradients_of_different_length_shorten_the_mean():
    jacobian = torch.tensor([[1.0, 2], [-3, -6]], dtype=torch.float64)
    # g_0 = (-1, -2) hurts the first task, and the ball lets d be .6 of it at best.
    assert combine(CAGrad(0.4, rescale=0), jacobian).tolist() == pytest.approx([-1.2, -2.4], abs=1e-5)


def test_a_task_without_a_gradient_counts_in_the_mean_only():
    jacobian = random_jacobian(3)
    padded = torch.cat([jacobian, torch.zeros(1, 10, dtype=torch.float64)])
    # Both the factor K and the mean have K in them.
    torch.testing.assert_close(combine(CAGrad(), padded), combine(CAGrad(), jacobian), rtol=1e-6, atol=1e-6)


def test_a_fallback_is_counted_where_the_solver_does_not_end(monkeypatch):
    monkeypatch.setattr(
        "mtlrun.weightings.cagrad.worst_case_weights",
        lambda gram, slopes, radius: (numpy.full(len(gram), 1 / len(gram)), 1.0, False),
    )
    weighting = CAGrad()
    combine(weighting, CONFLICT)
    assert weighting.fallbacks == 1


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"c must be >= 0, found -0\.1"):
        CAGrad(-0.1)
    with pytest.raises(ValueError, match="rescale must be one of 0, 1, 2, found 3"):
        CAGrad(rescale=3)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0, 5.0])
@pytest.mark.parametrize("common", [0.0, 1.0])
def test_worst_case_weights_are_certified_by_their_own_direction(num_tasks, share, common):
    for seed in range(5):
        weights, _, gap = best_worst_case(random_rows(num_tasks, seed, common), share)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert gap < 1e-6 * (1 + share)


@pytest.mark.parametrize("num_tasks", [2, 3, 8])
def test_worst_case_value_is_the_smallest_that_a_general_solver_finds(num_tasks):
    for seed in range(5):
        rows = random_rows(num_tasks, seed, common=0.5)
        gram = rows @ rows.T / (rows**2).sum()
        slopes, radius = gram.mean(axis=1), 0.4 * numpy.sqrt(gram.mean())
        reference = minimize(
            objective, numpy.full(num_tasks, 1 / num_tasks), args=(gram, slopes, radius), method="SLSQP",
            bounds=[(0, 1)] * num_tasks, constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        found = worst_case_weights(gram, slopes, radius)[0]
        assert objective(found, gram, slopes, radius) == pytest.approx(reference.fun, abs=1e-7)


@pytest.mark.parametrize("share", [0.1, 0.4, 2.0])
@pytest.mark.parametrize("num_tasks", [2, 3])
def test_worst_case_value_is_not_above_any_on_a_grid(num_tasks, share):
    steps = numpy.linspace(0, 1, 201)
    grid = [(a, 1 - a) for a in steps] if num_tasks == 2 else [(a, b, 1 - a - b) for a in steps for b in steps]
    grid = numpy.array([point for point in grid if min(point) >= 0])
    for seed in range(5):
        rows = random_rows(num_tasks, seed, common=0.5)
        gram = rows @ rows.T
        slopes, radius = gram.mean(axis=1), share * numpy.sqrt(gram.mean())
        on_grid = grid @ slopes + radius * numpy.sqrt(((grid @ gram) * grid).sum(axis=1))
        found = objective(worst_case_weights(gram, slopes, radius)[0], gram, slopes, radius)
        assert found <= on_grid.min() + 1e-7 * gram.max()


def test_worst_case_solutions_lie_inside_the_simplex_and_on_its_border():
    rows = [random_rows(4, seed, common) for seed in range(20) for common in (-1.0, 0.3, 2.0)]
    solutions = [best_worst_case(each, share)[0] for each in rows for share in (0.4, 5.0)]
    assert {int((weights > 0).sum()) for weights in solutions} == {1, 2, 3, 4}


@pytest.mark.parametrize("share", [0.4, 1.0, 3.0])
@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0], [-3, 0]],
        [[1.0, 0], [-1, 0], [0, 1]],
        [[1.0, 0], [1, 0], [1, 0]],
        [[1.0, 0], [-0.5, 0.8], [-0.5, -0.6]],
        [[1.0, 2, 3], [1, 2, 3], [-2, 1, 0], [-2, 1, 0], [-1, 3, 3]],
    ],
    ids=["opposed", "two of three opposed", "parallel", "around zero", "dependent"],
)
def test_worst_case_weights_are_certified_where_gradients_depend_on_each_other(rows, share):
    _, direction, gap = best_worst_case(numpy.array(rows), share)
    assert gap < 1e-3 * (1 + share)
    assert numpy.isfinite(direction).all()
