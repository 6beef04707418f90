"""The shortest vector in a convex hull, against its conditions of optimality and against other programs."""

from itertools import combinations

import numpy
import pytest
from scipy.optimize import nnls

from mtlrun.weightings.solvers.frank_wolfe import frank_wolfe_weights
from mtlrun.weightings.solvers.minimum_norm import minimum_norm_weights


def random_rows(random, num_tasks):
    """Gradients in fewer or more dimensions than tasks, of one length or of very different ones, some of them equal."""
    size = int(random.choice([1, 2, 3, num_tasks // 2 + 1, num_tasks, 2 * num_tasks, 100]))
    rows = random.normal(size=(num_tasks, size))
    match int(random.integers(5)):
        case 0:
            rows *= 10 ** (3 * random.random((num_tasks, 1)))
        case 1:
            rows *= 10 ** (6 * random.random((num_tasks, 1)))
        case 2:  # opposite and equal ones
            rows[random.integers(num_tasks)] = -rows[random.integers(num_tasks)]
            rows[random.integers(num_tasks)] = rows[random.integers(num_tasks)]
        case 3:
            rows += 3 * random.normal(size=size)  # most of them agree
    return rows


def violation(gram, weights):
    """By how much (G w)_k >= w^T G w, and equality where w_k > 0, fail, in units of the lengths that add up in G w."""
    lengths = numpy.sqrt(numpy.diagonal(gram))
    total = weights @ lengths
    gaps = (weights @ gram @ weights - gram @ weights) / (total * numpy.maximum(lengths, total))
    return max(gaps.max(), abs(gaps[weights > 0]).max())


def test_ten_thousand_problems_satisfy_the_conditions_of_optimality():
    random = numpy.random.default_rng(0)
    for _ in range(10_000):
        rows = random_rows(random, int(random.integers(2, 41)))
        gram = rows @ rows.T
        weights, solved = minimum_norm_weights(gram)
        assert solved
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert violation(gram, weights) <= 1e-11
        conflicts = gram @ weights < -1e-11 * numpy.sqrt(numpy.diagonal(gram)) * (
            weights @ numpy.linalg.norm(rows, axis=1)
        )
        assert not conflicts.any()


def test_frank_wolfe_fails_where_the_exact_solution_does_not():
    # So the test above can fail: this is what the weights were before.
    random = numpy.random.default_rng(1)
    conflicts = []
    for _ in range(20):
        rows = random.normal(size=(40, 100)) * 10 ** (3 * random.random((40, 1)))
        gram = rows @ rows.T
        conflicts.append((gram @ frank_wolfe_weights(gram, 250, 1e-5)).min() < 0)
        assert (gram @ minimum_norm_weights(gram)[0]).min() > 0
    assert any(conflicts)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5])
def test_norm_is_the_smallest_over_all_sets_of_tasks(num_tasks):
    random = numpy.random.default_rng(num_tasks)
    for _ in range(40):
        rows = random_rows(random, num_tasks)
        gram = rows @ rows.T
        smallest = numpy.inf
        for used in (list(c) for size in range(1, num_tasks + 1) for c in combinations(range(num_tasks), size)):
            # The conditions of Lagrange, by least squares, since gradients may be dependent.
            bordered = numpy.block(
                [[gram[numpy.ix_(used, used)], numpy.ones((len(used), 1))], [numpy.ones(len(used)), 0]]
            )
            unit = numpy.abs(bordered).max(axis=1)
            scaled = bordered / numpy.sqrt(unit[:, None] * unit)
            solution = numpy.linalg.lstsq(scaled, numpy.eye(len(unit))[-1] / numpy.sqrt(unit[-1]), rcond=1e-12)[0]
            weights = numpy.maximum((solution / numpy.sqrt(unit))[:-1], 0)
            if weights.sum() > 0:
                point = rows[used].T @ (weights / weights.sum())
                smallest = min(smallest, point @ point)
        weights, _ = minimum_norm_weights(gram)
        assert (rows.T @ weights) @ (rows.T @ weights) <= smallest * (1 + 1e-9) + 1e-12 * numpy.diagonal(gram).min()


@pytest.mark.parametrize("span", [0, 3])
@pytest.mark.parametrize("num_tasks", [4, 40])
def test_direction_is_that_of_a_non_negative_least_squares_program(num_tasks, span):
    # The shortest d with g_k . d >= 1 for all k is d / ‖d‖² for the shortest d of the hull: its dual is a problem of
    # non-negative least squares (Lawson & Hanson, chapter 23.4).
    random = numpy.random.default_rng(span)
    for _ in range(10):
        rows = random.normal(size=(num_tasks, 100)) * 10 ** (span * random.random((num_tasks, 1)))
        longer = numpy.concatenate([rows / numpy.linalg.norm(rows, axis=1).min(), numpy.ones((num_tasks, 1))], axis=1)
        factors, _ = nnls(longer.T, numpy.eye(101)[-1])
        weights, _ = minimum_norm_weights(rows @ rows.T)
        numpy.testing.assert_allclose(weights, factors / factors.sum(), atol=1e-9)


def test_lengths_do_not_change_what_is_solved():
    rows = numpy.random.default_rng(0).normal(size=(6, 20))
    weights, _ = minimum_norm_weights(rows @ rows.T)
    for scale in (1e-24, 1e20):
        scaled, solved = minimum_norm_weights((scale * rows) @ (scale * rows).T)
        assert solved
        numpy.testing.assert_allclose(scaled, weights, rtol=1e-9)


@pytest.mark.parametrize("num_tasks", [1, 3, 40])
def test_zero_gradients_get_all_weight(num_tasks):
    rows = numpy.random.default_rng(0).normal(size=(num_tasks, 5))
    rows[0] = 0
    weights, solved = minimum_norm_weights(rows @ rows.T)
    assert solved
    assert weights.tolist() == [1.0] + [0.0] * (num_tasks - 1)
    weights, solved = minimum_norm_weights(numpy.zeros((num_tasks, num_tasks)))
    assert solved
    assert weights.tolist() == pytest.approx([1 / num_tasks] * num_tasks)


def test_a_matrix_that_rounding_made_indefinite_is_solved_to_its_precision():
    random = numpy.random.default_rng(3)
    for num_tasks in (5, 20, 40) * 20:
        rows = random.normal(size=(num_tasks, 4)).astype(numpy.float32)
        gram = (rows @ rows.T).astype(numpy.float64)
        weights, solved = minimum_norm_weights(gram)
        assert solved
        assert violation(gram, weights) <= 1e-6
