"""The projection on the dual cone, against its conditions of optimality and SciPy."""

import numpy
import pytest
from scipy.optimize import nnls

from mtlrun.weightings.solvers.cone import cosines, project_on_dual_cone
from mtlrun.weightings.solvers.conflicts import resolve_at_once, resolve_conflicts


def random_rows(num_tasks, num_parameters, seed):
    return numpy.random.default_rng(seed).normal(size=(num_tasks, num_parameters))


def starts(num_tasks):
    return numpy.concatenate([numpy.eye(num_tasks), numpy.full((1, num_tasks), 1 / num_tasks)])


def rows_of_many_kinds():
    for seed in range(40):
        random = numpy.random.default_rng(seed)
        num_tasks = int(random.integers(1, 10))
        rows = random_rows(num_tasks, int(random.integers(1, 12)), seed)
        yield rows
        yield numpy.round(0.8 * rows)  # with rows of zeros, equal and opposite ones
        yield rows * numpy.exp(4 * random.normal(size=(num_tasks, 1)))
        if num_tasks > 2:
            rows = rows.copy()
            rows[0], rows[1] = -rows[2], 2 * rows[2]
            yield rows


def test_projection_conflicts_with_no_row_and_adds_only_rows_that_it_is_orthogonal_to():
    # These two and v >= u are the conditions of Karush, Kuhn and Tucker: they hold at the minimum and nowhere else.
    for rows in rows_of_many_kinds():
        for start in starts(len(rows)):
            found, solved = project_on_dual_cone(rows @ rows.T, start[None], 0.0)
            lengths = numpy.linalg.norm(rows, axis=1)
            scale = max((lengths * start).max(), 1e-12)
            products = rows @ (rows.T @ found[0]) / numpy.where(lengths > 0, lengths, 1) / scale
            assert solved
            assert (found[0] >= start).all()
            assert products.min() >= -1e-8
            assert abs((found[0] - start) * lengths / scale * products).max() <= 1e-8


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_projection_is_that_of_a_general_solver(num_tasks):
    for seed in range(10):
        rows = random_rows(num_tasks, num_tasks + 3, seed)
        for start in starts(num_tasks):
            # The nearest vector is start + what a non-negative combination of the rows must add to it.
            added, _ = nnls(rows.T, -rows.T @ start)
            found, _ = project_on_dual_cone(rows @ rows.T, start[None], 0.0)
            numpy.testing.assert_allclose(found[0], start + added, atol=1e-9)


def test_regularization_is_relative_to_the_trace():
    rows, start = random_rows(4, 6, 1), numpy.eye(4)
    longer = numpy.concatenate([rows, numpy.sqrt(1e-2 * (rows**2).sum()) * numpy.eye(4)], axis=1)
    expected, _ = project_on_dual_cone(longer @ longer.T, start, 0.0)
    found, _ = project_on_dual_cone(rows @ rows.T, start, 1e-2)
    scaled, _ = project_on_dual_cone(1e12 * rows @ rows.T, start, 1e-2)
    numpy.testing.assert_allclose(found, expected)
    numpy.testing.assert_allclose(scaled, expected)


def test_regularization_bounds_what_is_added_for_rows_that_are_nearly_opposite():
    rows = numpy.array([[1.0, 1e-3], [-1.0, 1e-3], [0.0, -1.0]])
    exact, _ = project_on_dual_cone(rows @ rows.T, numpy.eye(3), 0.0)
    bounded, _ = project_on_dual_cone(rows @ rows.T, numpy.eye(3), 1e-4)
    assert exact.max() > 400
    assert bounded.max() < 20


def test_a_vector_without_conflict_is_left_as_it_is():
    rows = abs(random_rows(3, 5, 0))
    found, solved = project_on_dual_cone(rows @ rows.T, numpy.eye(3), 0.0)
    assert solved
    assert (found == numpy.eye(3)).all()


def test_rows_of_zeros_have_no_influence():
    found, solved = project_on_dual_cone(numpy.zeros((2, 2)), numpy.eye(2), 1e-4)
    assert solved
    assert (found == numpy.eye(2)).all()


def test_forty_tasks_are_solved():
    rows = random_rows(40, 30, 0)
    found, solved = project_on_dual_cone(rows @ rows.T, numpy.eye(40), 1e-4)
    assert solved
    assert (rows @ rows.T @ found.T).min() > -1e-2 * (rows**2).sum(axis=1).mean()


def test_cosines_of_a_row_of_zeros_are_zero():
    unit, lengths = cosines(numpy.diag([4.0, 0.0]))
    assert unit.tolist() == [[1, 0], [0, 0]]
    assert lengths.tolist() == [2, 1]


@pytest.mark.parametrize("num_tasks", [5, 40])
def test_projection_is_exact_for_lengths_that_differ_by_a_thousand(num_tasks):
    random = numpy.random.default_rng(num_tasks)
    for num_parameters in (3, num_tasks, 200):
        rows = random.normal(size=(num_tasks, num_parameters)) * 10 ** (3 * random.random((num_tasks, 1)))
        lengths = numpy.linalg.norm(rows, axis=1)
        for start in starts(num_tasks):
            found, solved = project_on_dual_cone(rows @ rows.T, start[None], 0.0)
            scale = (lengths * found[0]).sum()
            products = rows @ (rows.T @ found[0]) / lengths / scale
            assert solved
            assert products.min() >= -1e-10
            assert abs((found[0] - start) * lengths / scale * products).max() <= 1e-10


def test_projections_of_many_vectors_at_once_are_those_of_each_alone():
    rng = numpy.random.default_rng(0)
    at_once = 0
    for num_tasks in (2, 3, 8, 40):
        for case in range(10):
            rows = rng.normal(size=(num_tasks, num_tasks + 5)) + rng.normal(size=num_tasks + 5) * (case % 3)
            if case % 4 == 3:
                rows[-1] = -rows[0]  # dependent
            unit, lengths = cosines(rows @ rows.T + 1e-4 * numpy.eye(num_tasks))
            vectors = numpy.vstack([numpy.diag(lengths), rng.normal(size=num_tasks)])
            added, unsolved = resolve_at_once(unit, vectors)
            at_once += len(vectors) - len(unsolved)
            for number in set(range(len(vectors))) - set(unsolved):
                alone, solved = resolve_conflicts(unit, vectors[number])
                assert solved
                assert added[number] == pytest.approx(alone, rel=1e-6, abs=1e-8 * lengths.max())
    assert at_once > 0.9 * 10 * (3 + 4 + 9 + 41)
