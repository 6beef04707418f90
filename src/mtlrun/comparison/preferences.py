"""Which method is the best under varied weights of the tasks: how much of the simplex of weights each wins."""

from collections.abc import Sequence
from itertools import combinations, pairwise

SAMPLES = 10_000
SEED = 0

#: A value per method and task on one scale, [num_methods][num_tasks]; higher is better.
Scores = Sequence[Sequence[float]]


def win_fractions(scores: Scores) -> list[float]:
    """Return the fraction of all weights of the tasks under which each method has the highest weighted mean score.

    Weights are >= 0 and sum to 1, all equally likely. Exact for one and two tasks; for more the fraction of 10,000
    weights that are drawn uniformly from the simplex (a Dirichlet distribution with all parameters 1), of a fixed
    seed. A tie is divided equally. A method that no weights prefer may still be on the Pareto front: in a dent of it.
    """
    if not scores:
        return []
    num_tasks = len(scores[0])
    if num_tasks > 2:
        return _sampled(scores, num_tasks)
    wins = [0.0] * len(scores)
    bounds = _crossings(scores) if num_tasks == 2 else [0.0, 1.0]
    for low, high in pairwise(bounds):
        middle = (low + high) / 2
        values = [middle * score[0] + (1 - middle) * score[-1] for score in scores]
        scale = max(abs(value) for score in scores for value in score)
        winners = [method for method, value in enumerate(values) if max(values) - value <= 1e-12 * scale]
        for method in winners:
            wins[method] += (high - low) / len(winners)
    return wins


def _crossings(scores: Scores) -> list[float]:
    """Return 0, 1 and, between these, the weights of the first of two tasks at which two methods are equal."""
    found = {0.0, 1.0}
    for one, other in combinations(scores, 2):
        first, second = one[0] - other[0], one[1] - other[1]
        if first * second < 0:
            found.add(second / (second - first))
    return sorted(found)


def _sampled(scores: Scores, num_tasks: int) -> list[float]:
    import numpy

    weights = numpy.random.default_rng(SEED).dirichlet(numpy.ones(num_tasks), SAMPLES)
    values = weights @ numpy.array(scores, dtype=float).T
    best = values >= values.max(axis=1, keepdims=True) - 1e-12 * numpy.abs(values).max()
    wins: list[float] = (best / best.sum(axis=1, keepdims=True)).mean(axis=0).tolist()
    return wins
