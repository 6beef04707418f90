"""Conflicts of a direction with task gradients, resolved by adding as little of these as possible."""

import numpy

# A task conflicts with a direction if their inner product is below minus this fraction of the lengths involved.
_CONFLICT = 1e-10

# How often constraints may change sides in the attempt to solve many problems at once, and how large it may be.
_ROUNDS = 6
_MOST_ENTRIES = 2**22

# Largest relative residual of a system of equations that counts as solved.
_RESIDUAL = 1e-9


def resolve_at_once(gram: numpy.ndarray, starts: numpy.ndarray) -> tuple[numpy.ndarray, list[int]]:
    """Try to solve the problems of `resolve_conflicts` for all starts at once.

    Block principal pivoting: the systems of all problems, each for its set of constraints, are solved in one call, and
    what violates the conditions of the minimum changes sides. A few rounds are enough for most problems; what meets the
    conditions then is the minimum, since the problem is convex.

    Args:
        gram: [K, K].
        starts: [N, K].

    Returns:
        x [N, K], and the numbers of those that are not solved.
    """
    count, num_tasks = starts.shape
    added, unsolved = numpy.zeros(starts.shape), numpy.arange(count)
    if count == 1 or starts.size * num_tasks > _MOST_ENTRIES:
        return added, unsolved.tolist()
    targets, sizes = -starts @ gram, numpy.abs(starts).max(axis=1, keepdims=True)
    used = targets > _CONFLICT * sizes
    identity = numpy.eye(num_tasks)
    for _ in range(_ROUNDS):
        target = numpy.where(used, targets, 0.0)
        try:
            best = numpy.linalg.solve(
                numpy.where(used[:, :, None] & used[:, None, :], gram, identity), target[:, :, None]
            )
        except numpy.linalg.LinAlgError:
            break
        best = best[:, :, 0]
        products = best @ gram
        inexact = numpy.abs(numpy.where(used, products - target, 0.0)).max(axis=1) > _RESIDUAL * numpy.abs(target).max(
            axis=1
        )
        limits = _CONFLICT * numpy.abs(starts[unsolved] + best).max(axis=1, keepdims=True)
        wrong = numpy.where(used, best <= 0, targets - products > limits)
        solved = ~(inexact | wrong.any(axis=1))
        added[unsolved[solved]] = best[solved]
        unsolved, targets, used = unsolved[~solved], targets[~solved], (used ^ wrong)[~solved]
        if not len(unsolved):
            break
    return added, unsolved.tolist()


def resolve_conflicts(gram: numpy.ndarray, start: numpy.ndarray) -> tuple[numpy.ndarray, bool]:
    """Return x = argmin over x >= 0 of (start + x)^T gram (start + x), and whether it was reached.

    The active-set method of Lawson & Hanson (1974, chapter 23) on the normal equations, started with all constraints
    that `start` violates instead of with none.
    """
    target = -gram @ start
    added = numpy.zeros(len(gram))
    used = target > _CONFLICT * numpy.abs(start).max()  # x may be positive here, and is zero elsewhere
    one_by_one = False
    for _ in range(3 * len(gram) + 3):
        best = _solve(gram, target, used)
        while best is not None and (best[used] <= 0).any():
            # Go as far toward the best point as all entries stay >= 0, and remove those that reach zero.
            falling = used & (best <= 0)
            drop = added[falling] - best[falling]
            fractions = numpy.divide(added[falling], drop, out=numpy.zeros(len(drop)), where=drop > 0)
            fraction = fractions.min()
            added += fraction * (best - added)
            used[numpy.flatnonzero(falling)[fractions <= fraction]] = False
            added[~used] = 0.0
            best = _solve(gram, target, used)
        if best is None:
            if one_by_one:
                return added, False
            # The gradients of the starting set are dependent: start with none, so that only independent ones are added.
            one_by_one = True
            used[:] = False
            best = numpy.zeros(len(gram))
        added = best
        slack = numpy.where(used, -numpy.inf, target - gram @ added)
        worst = int(numpy.argmax(slack))
        if slack[worst] <= _CONFLICT * numpy.abs(start + added).max():
            return added, True
        used[worst] = True
    return added, False


def _solve(gram: numpy.ndarray, target: numpy.ndarray, used: numpy.ndarray) -> numpy.ndarray | None:
    """Return the x that solves gram x = target on `used` and is zero elsewhere; None if rounding allows no solution."""
    solution = numpy.zeros(len(gram))
    indices = numpy.flatnonzero(used)
    if len(indices):
        part = gram[numpy.ix_(indices, indices)]
        try:
            solution[indices] = numpy.linalg.solve(part, target[indices])
        except numpy.linalg.LinAlgError:
            return None
        # For nearly dependent gradients, the result of solve may be far from a solution.
        residual = part @ solution[indices] - target[indices]
        if numpy.abs(residual).max() > _RESIDUAL * numpy.abs(target[indices]).max():
            return None
    return solution
