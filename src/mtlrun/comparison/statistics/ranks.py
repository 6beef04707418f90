"""Rank groups: methods between which a difference is inside the noise share a rank."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

from mtlrun.comparison.statistics.multiple import holm
from mtlrun.comparison.statistics.paired import Difference, Direction, compare

ALPHA = 0.05


def rank_groups(
    methods: Sequence[Mapping[Hashable, float]],
    direction: Direction,
    *,
    alpha: float = ALPHA,
    test_to_train: float = 0.0,
) -> list[int | None]:
    """Return each method's rank in one column: 1 + the number of methods that are significantly better.

    Each two methods are compared by `compare`, and the p values of all these pairs of the column are corrected by
    Holm's method; one is significantly better if the corrected p value is below `alpha`. So several methods may have
    rank 1. Equal ranks do not show that methods are equally good, and a method of rank 2 is significantly worse than
    one of those of rank 1, not necessarily than each.

    Args:
        methods: {repetition: value} of each.
        direction: of the metric.
        alpha: the probability of a false finding in the column.
        test_to_train: see `standard_error`.

    Returns:
        None for a method that could be tested against none.
    """
    pairs = list(combinations(range(len(methods)), 2))
    found = [compare(methods[one], methods[other], direction, test_to_train=test_to_train) for one, other in pairs]
    return ranks_of(len(methods), pairs, found, alpha)


def ranks_of(
    num_methods: int,
    pairs: Sequence[tuple[int, int]],
    differences: Sequence[Difference | None],
    alpha: float = ALPHA,
) -> list[int | None]:
    """Return the ranks by the differences of pairs of methods; see `rank_groups`."""
    corrected = holm([None if difference is None else difference.p for difference in differences])
    better = [0] * num_methods  # how many methods are better than each
    tested = [False] * num_methods
    for (one, other), difference, p in zip(pairs, differences, corrected, strict=True):
        if difference is not None and p is not None:
            tested[one] = tested[other] = True
            if p < alpha:
                better[other if difference.gain > 0 else one] += 1
    return [1 + count if there else None for count, there in zip(better, tested, strict=True)]
