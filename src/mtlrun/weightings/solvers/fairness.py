"""Solvers that methods share: pure functions of the Gram matrix, in float64.

All work on the cosines between the task gradients, with a regularization relative to them, so that the lengths of the
gradients, however different, decide nothing about what counts as zero.
"""

import numpy

from mtlrun.weightings.solvers.cone import RANK_TOLERANCE, cosines

# In Newton steps that change no unknown by more than this share, the quadratic model is good enough to go all the way.
_SHORT_STEP = 0.1


def regular_cosines(gram: numpy.ndarray, regularization: float = RANK_TOLERANCE) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the cosines [K, K] plus `regularization` times the identity, positive definite, and the lengths [K].

    Args:
        gram: [K, K] with a positive diagonal; rounding may have made it slightly indefinite.
        regularization: > 0; by default as large as what rounding of the gradients may do to the cosines.
    """
    matrix, lengths = cosines(gram)
    matrix = matrix + regularization * numpy.eye(len(gram))
    try:
        numpy.linalg.cholesky(matrix)
    except numpy.linalg.LinAlgError:
        matrix += (regularization - numpy.linalg.eigvalsh(matrix)[0]) * numpy.eye(len(gram))
    return matrix, lengths


def check_max_norm(max_norm: float | None) -> float | None:
    """Return the largest norm of a direction; ValueError unless it is > 0 or None."""
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm must be > 0, or null for no limit, found {max_norm}")
    return max_norm


def clip_norm(weights: numpy.ndarray, gram: numpy.ndarray, max_norm: float | None) -> numpy.ndarray:
    """Return the weights [K], made smaller together where the norm of their direction is above `max_norm`.

    What rounding may hide is counted in: large weights of gradients that cancel make a norm that `gram` cannot tell.
    """
    rounding = RANK_TOLERANCE * (weights**2 @ numpy.diagonal(gram))
    norm = numpy.sqrt(max(weights @ gram @ weights, 0.0) + rounding)
    return weights if max_norm is None or norm <= max_norm else weights * (max_norm / norm)


def fair_weights(
    gram: numpy.ndarray, alpha: float = 1.0, *, regularization: float = RANK_TOLERANCE, max_iterations: int = 100
) -> tuple[numpy.ndarray, bool]:
    """Return w > 0 with gram w = w^(-1/alpha), and whether it was found.

    With n the lengths of the gradients, C their cosines and v = n w, this is C v = s v^(-1/alpha) where
    s = n^(1/alpha - 1): the minimum over v > 0 of a convex function, found by a damped Newton method on relative
    changes of v. It has a solution, unique also for dependent gradients, unless a convex combination of the gradients
    is zero. The regularization of C gives one then too, with weights of about its inverse root over n: the direction
    that they make is nearly zero.

    A task without a gradient has nothing to win or lose, and gets no weight.

    Args:
        gram: [K, K], symmetric positive semi-definite but for rounding.
        alpha: > 0.
        regularization: added to the diagonal of C, > 0.
        max_iterations: Newton steps at most.
    """
    moved_by = numpy.diagonal(gram) > 0
    if not moved_by.all():
        weights, found = numpy.zeros(len(gram)), True
        if moved_by.any():
            part = gram[numpy.ix_(moved_by, moved_by)]
            weights[moved_by], found = fair_weights(
                part, alpha, regularization=regularization, max_iterations=max_iterations
            )
        return weights, found

    matrix, lengths = regular_cosines(gram, regularization)
    unit = numpy.exp(numpy.log(lengths).mean())
    lengths = lengths / unit
    power = 1 - 1 / alpha
    scale = lengths**-power
    # What each task alone would take, times the factor that is best for all.
    values = scale ** (alpha / (alpha + 1))
    values = values * (values @ values / (values @ matrix @ values)) ** (alpha / (alpha + 1))

    target, residual = _fair_residual(matrix, scale, power, values)
    found = False
    for _ in range(max_iterations):
        curvature = matrix * (values[:, None] * values)
        curvature.flat[:: len(values) + 1] += target / alpha
        change = numpy.linalg.solve(curvature, residual)
        decrement = residual @ change
        found = bool(decrement <= 1e-12 * target.sum())
        step = 1.0 if numpy.abs(change).max() <= _SHORT_STEP else min(1.0, 0.9 / max(-change.min(), 1e-300))
        while True:
            moved = values * (1 + step * change)
            new_target, new_residual = _fair_residual(matrix, scale, power, moved)
            # Minus the slope along the step at its end: overshot if it is as steep there as here, uphill.
            slope = new_residual @ (change / (1 + step * change))
            if step * numpy.abs(change).max() <= _SHORT_STEP or slope >= -0.9 * decrement:
                break
            step /= 2
        values, target, residual = moved, new_target, new_residual
        if found:
            break
    return values / lengths * unit ** (-2 * alpha / (alpha + 1)), found


def _fair_residual(
    matrix: numpy.ndarray, scale: numpy.ndarray, power: float, values: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return v s v^(-1/alpha), and what it exceeds v (C v) by."""
    target = scale * values**power
    return target, target - values * (matrix @ values)
