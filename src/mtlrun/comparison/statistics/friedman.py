"""Friedman's test of the ranks of methods, and Nemenyi's critical difference of average ranks.

A block is one task under one repetition, by its main metric: the methods are ranked in it. More seeds are more blocks,
and the critical difference shrinks with the square root of their number. What is found holds for new seeds on these
tasks, not for new tasks. The tasks of one run come from one network, so that their blocks are not quite independent,
and the test is an orientation beside the paired differences.

Source: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 2006), section 3.2.2, where a
block is a data set.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

from mtlrun.comparison.statistics.paired import Direction

#: {repetition: value} of each method, in one column.
ColumnValues = Sequence[Mapping[Hashable, float]]


@dataclass(frozen=True)
class RankTest:
    """The ranks of methods over blocks.

    Args:
        average_ranks: of each method; 1 is the best, equal values have their mean rank.
        num_blocks: over which.
        statistic: Friedman's chi-squared, corrected for ties.
        p: of the test that all methods have the same expected rank.
        critical_difference: Nemenyi's; average ranks that differ by less are not told apart.
        groups: the largest sets of methods that are not told apart, by their numbers from the best on; a method may be
            in several, and is in none if it differs from all others.
    """

    average_ranks: list[float]
    num_blocks: int
    statistic: float
    p: float
    critical_difference: float
    groups: list[list[int]]


def make_blocks(columns: Sequence[tuple[ColumnValues, Direction]]) -> list[list[float]]:
    """Return a block for each column and each repetition that all methods share, of values of which higher is better.

    Args:
        columns: one per task, of its main metric: metrics of one task are measured on the same predictions.
    """
    blocks = []
    for methods, direction in columns:
        sign = 1.0 if direction == "max" else -1.0
        for repetition in methods[0] if methods else ():
            values = [sign * method[repetition] for method in methods if repetition in method]
            if len(values) == len(methods) and all(map(isfinite, values)):
                blocks.append(values)
    return blocks


def rank_test(blocks: Sequence[Sequence[float]], alpha: float = 0.05) -> RankTest | None:
    """Return the test of methods over blocks of values of which higher is better; None without two methods and blocks.

    Args:
        blocks: [num_blocks][num_methods].
        alpha: level of the critical difference.
    """
    if len(blocks) < 2 or len(blocks[0]) < 2:
        return None
    from scipy.special import chdtrc

    count, methods = len(blocks), len(blocks[0])
    ranked = [rank(block) for block in blocks]
    averages = [sum(ranks) / count for ranks in zip(*ranked, strict=True)]
    ties = sum(block.count(value) ** 2 - 1 for block in map(list, blocks) for value in block)  # t^3 - t, in sum
    left = 1 - ties / (count * (methods**3 - methods))
    spread = sum((average - (methods + 1) / 2) ** 2 for average in averages)
    statistic = 12 * count / (methods * (methods + 1)) * spread / left if left > 0 else 0.0
    difference = critical_difference(methods, count, alpha)
    p = float(chdtrc(methods - 1, statistic))
    return RankTest(averages, count, statistic, p, difference, _groups(averages, difference))


def rank(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, 1 for the highest; equal values have their mean rank."""
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def critical_difference(num_methods: int, num_blocks: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of average ranks: q sqrt(k (k + 1) / (6 N)).

    q is the quantile of the studentized range of k groups with infinitely many degrees of freedom, over sqrt(2).
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, num_methods, float("inf"))) / sqrt(2)
    return quantile * sqrt(num_methods * (num_methods + 1) / (6 * num_blocks))


def _groups(averages: Sequence[float], difference: float) -> list[list[int]]:
    """Return the largest sets of methods whose average ranks differ by less than the critical difference."""
    order = sorted(range(len(averages)), key=lambda method: averages[method])
    groups: list[list[int]] = []
    for place, first in enumerate(order):
        group = [method for method in order[place:] if averages[method] - averages[first] < difference]
        if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
            groups.append(group)
    return groups
