"""The shortest vector in the convex hull of the task gradients, from their Gram matrix."""

import numpy

from mtlrun.weightings.solvers.cone import cosines

# Rounding error of a cosine that is computed in float64, per task.
_ROUNDING = 1e-14

# Largest violation of the conditions of optimality, relative to the lengths involved, of weights that count as exact.
_SOLVED = 1e-9


def minimum_norm_weights(gram: numpy.ndarray) -> tuple[numpy.ndarray, bool]:
    """Return w = argmin over the simplex of w^T gram w, and whether it was reached.

    At the minimum, and nowhere else, (gram w)_k >= w^T gram w for all k, with equality where w_k > 0; so its direction
    conflicts with no task. Where one or more gradients are zero, these get all weight.

    An active-set method, in the manner of Wolfe, "Finding the Nearest Point in a Polytope" (Mathematical Programming
    11, 1976): a task joins if it violates the conditions, and leaves where its weight would be negative. The unknowns
    are n_k w_k, with n_k the length of gradient k, which multiply the cosines, so that the lengths may differ by a
    factor of 1e6.

    Args:
        gram: [K, K], symmetric positive semi-definite but for rounding.
    """
    num_tasks = len(gram)
    zero = numpy.diagonal(gram) <= 0
    if zero.any():
        return zero / zero.sum(), True
    matrix, lengths = cosines(gram)
    matrix = _positive_definite(matrix)
    inverse = lengths.min() / lengths  # the sum of the weights is inverse . values, in units of the shortest gradient
    used, part = _first_guess(matrix, inverse)
    values = numpy.zeros(num_tasks)
    values[used] = part
    violation = numpy.inf
    for _ in range(10 * num_tasks):
        target = _minimum_on_hull(matrix, inverse, used)
        if target.min() > 0:
            values[used] = target
            violations = _violations(matrix, inverse, values)
            worst = int(violations.argmax())
            violation = violations[worst]
            if violation <= num_tasks * _ROUNDING or worst in used:
                break
            used = numpy.append(used, worst)
        else:
            used = _move(values, target, used)
            violation = numpy.inf
    weights = values * inverse
    return weights / weights.sum(), bool(violation <= _SOLVED)


def _positive_definite(matrix: numpy.ndarray) -> numpy.ndarray:
    """Return the cosines plus the smallest multiple of the identity that makes them positive definite in float64."""
    identity = numpy.eye(len(matrix))
    regular: numpy.ndarray = matrix + len(matrix) * _ROUNDING * identity
    try:
        numpy.linalg.cholesky(regular)
    except numpy.linalg.LinAlgError:
        regular = regular - numpy.linalg.eigvalsh(matrix)[0] * identity
    return regular


def _first_guess(matrix: numpy.ndarray, inverse: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return indices of tasks whose minimum lies inside the simplex, and their values there."""
    used = numpy.arange(len(matrix))
    target = _minimum_on_hull(matrix, inverse, used)
    while target.min() <= 0:
        used = used[target > 0]
        target = _minimum_on_hull(matrix, inverse, used)
    return used, target


def _minimum_on_hull(matrix: numpy.ndarray, inverse: numpy.ndarray, used: numpy.ndarray) -> numpy.ndarray:
    """Return the x, of any signs, that minimizes x^T matrix x where inverse . x = 1, of the `used` tasks only."""
    part = inverse[used]
    unit = part / numpy.sqrt(part @ part)
    # The solution is parallel to matrix^-1 part; adding the constraint's own square does not change its direction, and
    # keeps the system regular where a combination of the gradients is zero.
    solution: numpy.ndarray = numpy.linalg.solve(matrix[used[:, None], used] + unit[:, None] * unit, unit)
    solution /= part @ solution
    return solution


def _move(values: numpy.ndarray, target: numpy.ndarray, used: numpy.ndarray) -> numpy.ndarray:
    """Move `values` toward `target` until the first of them is zero, and return the indices of the others."""
    now = values[used]
    falling = target <= 0
    fractions = numpy.full(len(used), numpy.inf)
    fractions[falling] = now[falling] / (now[falling] - target[falling])
    first = int(fractions.argmin())
    values[used] = numpy.maximum(now + fractions[first] * (target - now), 0.0)
    values[used[first]] = 0.0
    return numpy.delete(used, first)


def _violations(matrix: numpy.ndarray, inverse: numpy.ndarray, values: numpy.ndarray) -> numpy.ndarray:
    """Return by how much the direction falls short of the conditions, relative to the lengths that add up in it."""
    products = matrix @ values
    total = values.sum()
    squared = values @ products
    violations: numpy.ndarray = (inverse * squared - products) / (total * numpy.maximum(1.0, inverse * total))
    return violations
