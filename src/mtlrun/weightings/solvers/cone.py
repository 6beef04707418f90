"""Angles between task gradients and projections on their dual cone, from the Gram matrix only."""

import numpy

from mtlrun.weightings.solvers.conflicts import resolve_at_once, resolve_conflicts

# Eigenvalues of the matrix of cosines below this are rounding errors, since gradients are float32.
RANK_TOLERANCE = 1e-6


def cosines(gram: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the cosines [K, K] between the task gradients and their lengths [K].

    A zero gradient has cosines of zero, and length one, so that it can be divided by.
    """
    lengths = numpy.sqrt(numpy.diagonal(gram).clip(min=0))
    lengths = numpy.where(lengths > 0, lengths, 1.0)
    return gram / lengths[:, None] / lengths[None, :], lengths


def project_on_dual_cone(
    gram: numpy.ndarray, start: numpy.ndarray, regularization: float
) -> tuple[numpy.ndarray, bool]:
    """Return the v for which J^T v is the vector nearest to J^T u that conflicts with no task, for each u in `start`.

    v = argmin over v >= u of v^T (G + r trace(G) I) v with G = J J^T; r > 0 keeps v small if the task gradients are
    nearly dependent, and leaves conflicts of its size.

    Args:
        gram: G [K, K].
        start: [N, K], the coefficients u of the vectors to be projected.
        regularization: r >= 0.

    Returns:
        v [N, K], and whether all were solved; if not, v is feasible, but a little above the minimum.
    """
    regular = gram + regularization * numpy.trace(gram) * numpy.eye(len(gram))
    # Scaled by the gradients' lengths, so that a task with a short gradient is not overlooked.
    unit, lengths = cosines(regular)
    scaled = start * lengths
    added, unsolved = resolve_at_once(unit, scaled)
    all_solved = True
    for number in unsolved:
        added[number], solved = resolve_conflicts(unit, scaled[number])
        all_solved = all_solved and solved
    return start + added / lengths, all_solved
