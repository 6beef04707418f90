"""The equation of fair weights, limits on the norm of a direction, and regularized cosines between task gradients."""

import numpy

from mtlrun.weightings.solvers.cone import RANK_TOLERANCE, cosines

# Newton steps that change no unknown by more than this fraction are made in full.
_SHORT_STEP = 0.1


def regular_cosines(gram: numpy.ndarray, regularization: float = RANK_TOLERANCE) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the cosines [K, K] plus `regularization` times the identity, positive definite, and the lengths [K].

    Args:
        gram: [K, K] with a positive diagonal; rounding may have made it slightly indefinite.
        regularization: > 0; by default as large as the effect of rounded gradients on the cosines.
    """
    matrix, lengths = cosines(gram)
    matrix = matrix + regularization * numpy.eye(len(gram))
    try:
        numpy.linalg.cholesky(matrix)
    except numpy.linalg.LinAlgError:
        matrix += (regularization - numpy.linalg.eigvalsh(matrix)[0]) * numpy.eye(len(gram))
    return matrix, lengths


def clip_norm(weights: numpy.ndarray, gram: numpy.ndarray, max_norm: float | None) -> numpy.ndarray:
    """Return the weights [K], scaled down if the norm of their direction is above `max_norm`.

    The rounding error is included: if large weights combine gradients that cancel, `gram` does not determine the norm.
    """
    rounding = RANK_TOLERANCE * (weights**2 @ numpy.diagonal(gram))
    norm = numpy.sqrt(max(weights @ gram @ weights, 0.0) + rounding)
    return weights if max_norm is None or norm <= max_norm else weights * (max_norm / norm)


def fair_weights(
    gram: numpy.ndarray, alpha: float = 1.0, *, regularization: float = RANK_TOLERANCE, max_iterations: int = 100
) -> tuple[numpy.ndarray, bool]:
    """Return w > 0 with gram w = w^(-1/alpha), and whether the method converged.

    With n the lengths of the gradients, C their cosines and v = n w, this is C v = s v^(-1/alpha) where
    s = n^(1/alpha - 1): the minimum over v > 0 of a convex function, computed by a damped Newton method on relative
    changes of v. The solution exists, and is unique even for dependent gradients, unless a convex combination of the
    gradients is zero. Even then there is one with the regularized C, with weights of about its inverse root over n: the
    direction is then nearly zero.

    A task with a zero gradient cannot be improved, and gets no weight.

    Args:
        gram: [K, K], symmetric positive semi-definite but for rounding.
        alpha: > 0.
        regularization: added to the diagonal of C, > 0.
        max_iterations: largest number of Newton steps.
    """
    improvable = numpy.diagonal(gram) > 0
    if not improvable.all():
        weights, solved = numpy.zeros(len(gram)), True
        if improvable.any():
            part = gram[numpy.ix_(improvable, improvable)]
            weights[improvable], solved = fair_weights(
                part, alpha, regularization=regularization, max_iterations=max_iterations
            )
        return weights, solved

    matrix, lengths = regular_cosines(gram, regularization)
    unit = numpy.exp(numpy.log(lengths).mean())
    lengths = lengths / unit
    power = 1 - 1 / alpha
    scale = lengths**-power
    # Start at the solution for each task alone, times the best common factor.
    values = scale ** (alpha / (alpha + 1))
    values = values * (values @ values / (values @ matrix @ values)) ** (alpha / (alpha + 1))

    target, residual = _fair_residual(matrix, scale, power, values)
    solved = False
    for _ in range(max_iterations):
        curvature = matrix * (values[:, None] * values)
        curvature.flat[:: len(values) + 1] += target / alpha
        change = numpy.linalg.solve(curvature, residual)
        decrement = residual @ change
        solved = bool(decrement <= 1e-12 * target.sum())
        step = 1.0 if numpy.abs(change).max() <= _SHORT_STEP else min(1.0, 0.9 / max(-change.min(), 1e-300))
        while True:
            moved = values * (1 + step * change)
            new_target, new_residual = _fair_residual(matrix, scale, power, moved)
            # Minus the slope along the step at its end: the step overshot if it is about as steep as here, but uphill.
            slope = new_residual @ (change / (1 + step * change))
            if step * numpy.abs(change).max() <= _SHORT_STEP or slope >= -0.9 * decrement:
                break
            step /= 2
        values, target, residual = moved, new_target, new_residual
        if solved:
            break
    return values / lengths * unit ** (-2 * alpha / (alpha + 1)), solved


def _fair_residual(
    matrix: numpy.ndarray, scale: numpy.ndarray, power: float, values: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return v s v^(-1/alpha), and the residual v s v^(-1/alpha) - v (C v)."""
    target = scale * values**power
    return target, target - values * (matrix @ values)
