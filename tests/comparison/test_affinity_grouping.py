"""Groups of tasks against an exhaustive search over all groupings."""

from itertools import combinations
from random import Random
from statistics import fmean
from time import monotonic

import pytest

from mtlrun.comparison.affinity.grouping import best_grouping


def score(closeness, network, task, alone):
    others = [other for other in network if other != task]
    if not others:
        everyone = [row[task] for position, row in enumerate(closeness) if position != task]
        return fmean(everyone) if alone is None else alone
    return fmean(closeness[other][task] for other in others)


def exhaustive(closeness, num_networks, alone, helpers):
    """Return the highest total over all choices of networks that cover the tasks; each task takes its best one."""
    tasks = range(len(closeness))
    networks = [network for size in range(1, len(tasks) + 1) for network in combinations(tasks, size)]
    best = float("-inf")
    for count in range(1, num_networks + 1):
        for chosen in combinations(networks, count):
            with_task = [[network for network in chosen if task in network] for task in tasks]
            if not all(with_task) or (not helpers and any(len(found) > 1 for found in with_task)):
                continue
            total = sum(
                max(score(closeness, network, task, alone) for network in found)
                for task, found in zip(tasks, with_task, strict=True)
            )
            best = max(best, total)
    return best


@pytest.mark.parametrize("helpers", [False, True])
def test_groups_are_the_best_of_all(helpers):
    random = Random(0)
    for num_tasks, num_networks, alone in [(1, 1, None), (2, 2, 0.0), (3, 2, None), (4, 2, 0.0), (4, 3, None)]:
        closeness = [[random.uniform(-1, 1) for _ in range(num_tasks)] for _ in range(num_tasks)]
        if num_tasks == 1:
            alone = 0.5  # there are no others whose mean it could be
        found = best_grouping(closeness, num_networks, alone=alone, helpers=helpers)
        assert found.total == pytest.approx(exhaustive(closeness, num_networks, alone, helpers))
        assert len(found.networks) <= num_networks
        assert sorted(task for served in found.served for task in served) == list(range(num_tasks))
        assert all(set(served) <= set(network) for served, network in zip(found.served, found.networks, strict=True))
        assert helpers or found.served == found.networks
        totals = [score(closeness, network, task, alone) for network, served in zip(found.networks, found.served,
                  strict=True) for task in served]  # fmt: skip
        assert found.total == pytest.approx(sum(totals))


def test_blocks_of_related_tasks_are_found():
    closeness = [[1.0 if a // 2 == b // 2 else -0.5 for b in range(6)] for a in range(6)]
    assert best_grouping(closeness, 3).networks == ((0, 1), (2, 3), (4, 5))
    assert best_grouping(closeness, 1).networks == ((0, 1, 2, 3, 4, 5),)
    # More networks than blocks: a task alone is worth no more, so that none is split off.
    assert best_grouping(closeness, 6).networks == ((0, 1), (2, 3), (4, 5))
    assert best_grouping([[0.0] * 3] * 3, 3).networks == ((0, 1, 2),)


def test_a_helper_joins_a_network_that_serves_another_task():
    # 2 helps 0 and 1 without gaining from them, and is best alone.
    closeness = [[0, -1, -1], [-1, 0, -1], [1, 1, 0]]
    found = best_grouping(closeness, 3, alone=0.0, helpers=True)
    assert (found.networks, found.served) == (((0, 2), (1, 2), (2,)), ((0,), (1,), (2,)))
    assert found.total == 2


def test_twelve_tasks_take_seconds_and_more_are_refused():
    random = Random(1)
    closeness = [[random.random() for _ in range(12)] for _ in range(12)]
    start = monotonic()
    assert len(best_grouping(closeness, 2).networks) == 2
    assert monotonic() - start < 30
    with pytest.raises(ValueError, match="up to 12 tasks, found 13"):
        best_grouping([[0.0] * 13] * 13, 2)
    with pytest.raises(ValueError, match="every pair"):
        best_grouping([[0.0, float("nan")], [0.0, 0.0]], 2)
    with pytest.raises(ValueError, match="num_networks must be >= 1"):
        best_grouping([[0.0]], 0)
