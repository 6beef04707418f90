"""The solvers that methods share, against general ones and closed forms."""

import numpy
import pytest
from scipy.optimize import least_squares

from mtlrun.weightings.solvers.fairness import clip_norm, fair_weights, regular_cosines

SIZES = [2, 3, 8, 40]


def random_rows(num_tasks, seed, common=1.0, spread=1.0):
    """Return rows that agree the more the larger `common`, and differ in length the more the larger `spread`."""
    random = numpy.random.default_rng(seed)
    rows = random.normal(size=(num_tasks, 2 * num_tasks + 4)) + common * random.normal(size=2 * num_tasks + 4)
    return rows * numpy.exp(spread * random.normal(size=(num_tasks, 1)))


def test_regular_cosines_are_those_of_the_rows_with_the_regularization_on_the_diagonal():
    matrix, lengths = regular_cosines(numpy.array([[4.0, 3.0], [3.0, 9.0]]), 0.1)
    assert lengths.tolist() == [2, 3]
    assert matrix.tolist() == [[pytest.approx(1.1), 0.5], [0.5, pytest.approx(1.1)]]


def test_regular_cosines_are_positive_definite_where_rounding_has_made_the_gram_matrix_indefinite():
    gram = numpy.array([[1.0, 1 + 1e-5], [1 + 1e-5, 1.0]])
    assert numpy.linalg.eigvalsh(regular_cosines(gram, 1e-8)[0])[0] >= 0.9e-8


@pytest.mark.parametrize("num_tasks", [1, *SIZES])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
def test_fair_weights_solve_their_equation(num_tasks, alpha):
    for seed in range(5):
        gram = (lambda rows: rows @ rows.T)(random_rows(num_tasks, seed))
        weights, found = fair_weights(gram, alpha)
        assert found
        assert (weights > 0).all()
        numpy.testing.assert_allclose(gram @ weights, weights ** (-1 / alpha), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fair_weights_are_those_of_general_least_squares(alpha):
    for seed in range(5):
        rows = random_rows(3, seed, common=0.3, spread=0.3)
        gram = rows @ rows.T
        reference = least_squares(
            lambda weights, gram=gram: gram @ weights - weights ** (-1 / alpha),
            numpy.full(3, 1 / 3), bounds=(1e-12, numpy.inf), xtol=1e-14, ftol=1e-14, gtol=1e-14,
        )  # fmt: skip
        assert reference.cost < 1e-12
        numpy.testing.assert_allclose(fair_weights(gram, alpha)[0], reference.x, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fair_weights_of_orthogonal_gradients_are_powers_of_their_lengths(alpha):
    lengths = numpy.array([1e-3, 0.5, 2.0, 1e4])
    weights, found = fair_weights(numpy.diag(lengths**2), alpha)
    assert found
    numpy.testing.assert_allclose(weights, lengths ** (-2 * alpha / (alpha + 1)), rtol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_fair_weights_of_parallel_gradients_are_unique_though_the_gram_matrix_is_singular(alpha):
    weights, found = fair_weights(numpy.ones((3, 3)), alpha)
    assert found
    # 3 w = w^(-1/alpha)
    numpy.testing.assert_allclose(weights, 3 ** (-alpha / (alpha + 1)), rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-16, 1e16])
def test_fair_weights_follow_the_scale_of_the_gram_matrix_exactly(factor):
    rows = random_rows(4, 0, common=0.0)
    for alpha in (0.5, 1.0, 2.0):
        expected = fair_weights(rows @ rows.T, alpha)[0] * factor ** (-alpha / (alpha + 1))
        numpy.testing.assert_allclose(fair_weights(factor * rows @ rows.T, alpha)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0], [-1, 0]],
        [[1.0, 2], [-300, -600]],
        [[1.0, 0], [-0.5, 0.8], [-0.5, -0.8]],
        [[1.0, 0], [-1, 0], [0, 1]],
    ],
    ids=["opposed", "opposed, of different length", "cancelling", "two of three opposed"],
)
def test_fair_weights_of_gradients_that_cancel_are_finite_and_their_direction_helps_no_task_much(rows, alpha):
    rows = numpy.array(rows)
    weights, found = fair_weights(rows @ rows.T, alpha)
    assert found
    assert numpy.isfinite(weights).all()
    # Of the lengths that went into it, little is left along those that cancel.
    assert abs(rows[0] @ (weights @ rows)) < 1e-3 * (weights[0] * rows[0] @ rows[0])


def test_a_task_without_a_gradient_gets_no_fair_weight_and_changes_no_other():
    rows = random_rows(3, 1)
    padded = numpy.insert(rows, 1, 0.0, axis=0)
    weights, found = fair_weights(padded @ padded.T, 2.0)
    assert found
    assert weights[1] == 0
    numpy.testing.assert_allclose(numpy.delete(weights, 1), fair_weights(rows @ rows.T, 2.0)[0])
    assert fair_weights(numpy.zeros((2, 2)))[0].tolist() == [0, 0]


def test_fair_weights_report_that_they_were_not_found():
    rows = random_rows(5, 2)
    weights, found = fair_weights(rows @ rows.T, 2.0, max_iterations=1)
    assert not found
    assert (weights > 0).all()
    assert numpy.isfinite(weights).all()


def test_clipping_makes_weights_smaller_only_where_the_norm_is_too_large():
    gram, weights = numpy.diag([4.0, 9.0]), numpy.array([1.5, 4 / 3])  # of norm 5
    assert clip_norm(weights, gram, 5.1) is weights
    assert clip_norm(weights, gram, None) is weights
    assert clip_norm(weights, gram, 1.0).tolist() == pytest.approx([0.3, 4 / 15], rel=1e-5)


def test_clipping_does_not_trust_a_norm_of_zero_that_large_weights_make():
    gram, weights = numpy.array([[1.0, -1.0], [-1.0, 1.0]]), numpy.array([1e4, 1e4])
    # Rounding of a millionth in the squared lengths may be 200 in the squared norm.
    assert clip_norm(weights, gram, 1.0).tolist() == pytest.approx([1e4 / 200**0.5] * 2)
