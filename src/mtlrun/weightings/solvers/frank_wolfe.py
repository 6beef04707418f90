"""A short vector in the convex hull of the task gradients, as published code computes it."""

import numpy


def frank_wolfe_weights(gram: numpy.ndarray, max_iterations: int, tolerance: float) -> numpy.ndarray:
    """Return a w in the simplex with w^T gram w near its minimum, by Frank-Wolfe with exact line search.

    The start is the best combination of two tasks, so that two tasks are solved exactly.

    Args:
        gram: [K, K], symmetric positive semi-definite.
        max_iterations: largest number of iterations.
        tolerance: for the duality gap, relative to the mean of the diagonal.
    """
    num_tasks = len(gram)
    scale = numpy.trace(gram) / num_tasks
    if scale == 0:
        return numpy.full(num_tasks, 1 / num_tasks)
    gram = gram / scale
    weights = _best_pair(gram) if num_tasks > 1 else numpy.ones(1)
    products, squares = gram @ weights, gram.diagonal().tolist()
    squared_norm = float(weights @ products)
    for _ in range(max_iterations):
        toward = int(products.argmin())
        product = float(products[toward])
        gap = squared_norm - product
        if gap <= tolerance:
            break
        # The shortest vector on the segment from the current combination to that task's gradient.
        step = min(gap / (squared_norm - 2 * product + squares[toward]), 1.0)
        rest = 1 - step
        weights *= rest
        weights[toward] += step
        products *= rest
        products += step * gram[toward]
        squared_norm = rest * rest * squared_norm + 2 * rest * step * product + step * step * squares[toward]
    return weights


def _best_pair(gram: numpy.ndarray) -> numpy.ndarray:
    """Return the best weights among those that are zero for all but two tasks; for two tasks, the solution."""
    first, second = numpy.triu_indices(len(gram), k=1)
    squares, products = numpy.diagonal(gram), gram[first, second]
    a, c = squares[first], squares[second]
    distance = a - 2 * products + c
    fraction = numpy.where(distance > 0, (c - products) / numpy.where(distance > 0, distance, 1.0), 0.5).clip(0, 1)
    values = fraction**2 * a + 2 * fraction * (1 - fraction) * products + (1 - fraction) ** 2 * c
    best = int(values.argmin())
    weights = numpy.zeros(len(gram))
    weights[first[best]], weights[second[best]] = fraction[best], 1 - fraction[best]
    return weights
