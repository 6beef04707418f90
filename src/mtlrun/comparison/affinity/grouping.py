"""Groups of tasks: which tasks to train together, for a given number of networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import fmean

#: The search takes 3^K steps: a second or two for so many tasks.
MOST_TASKS = 12


@dataclass(frozen=True)
class Grouping:
    """The networks that promise the highest total affinity.

    Args:
        networks: the tasks that are trained together, as positions in rising order.
        served: of each network, the tasks whose predictions are taken from it; the others are there to help.
        total: sum over the tasks of the mean affinity of the others in their network to them.
    """

    networks: tuple[tuple[int, ...], ...]
    served: tuple[tuple[int, ...], ...]
    total: float


def best_grouping(
    closeness: Sequence[Sequence[float]], num_networks: int, *, alone: float | None = None, helpers: bool = False
) -> Grouping:
    """Return the grouping of K tasks into at most `num_networks` networks with the highest total affinity.

    The affinity of a network to a task in it is the mean over the other tasks in it of their affinity to this task, as
    in Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning" (NeurIPS 2021), section 3.3, after
    Standley et al., "Which Tasks Should Be Learned Together in Multi-task Learning?" (ICML 2020). All groupings are
    considered, by dynamic programming over sets of tasks. Among equal ones, the one of fewer networks is returned.

    Args:
        closeness: [K][K], entry [i][j] is the affinity of task i to task j; the diagonal does not matter.
        num_networks: at most so many, 1 or more.
        alone: what a network of one task counts; None for the mean affinity of all other tasks to that task.
        helpers: allow that a network also trains tasks whose predictions come from another network.

    Raises:
        ValueError: an affinity is not finite, or there are too many tasks.
    """
    num_tasks = len(closeness)
    if num_networks < 1:
        raise ValueError(f"num_networks must be >= 1, found {num_networks}")
    if num_tasks > MOST_TASKS:
        raise ValueError(f"groups are found for up to {MOST_TASKS} tasks, found {num_tasks}")
    if not all(isfinite(value) for a, row in enumerate(closeness) for b, value in enumerate(row) if a != b):
        raise ValueError("groups need the affinity of every pair of tasks")
    scores = [_scores(closeness, members, alone) for members in range(1 << num_tasks)]
    values, trained = _values(scores, num_tasks, helpers=helpers)
    everything = (1 << num_tasks) - 1
    # totals[mask]: the best of the tasks in `mask`, with as many networks as there were rounds; last[mask]: the tasks
    # that one of these networks serves.
    totals = [-inf if mask else 0.0 for mask in range(1 << num_tasks)]
    best, best_parts = -inf, list[int]()
    rounds: list[list[int]] = []
    for _ in range(min(num_networks, num_tasks)):
        totals, last = _add_network(totals, values)
        rounds.append(last)
        if totals[everything] > best + 1e-12 * abs(best if isfinite(best) else 0.0):
            best, best_parts = totals[everything], _unwind(rounds, everything)
    parts = sorted(best_parts, key=_positions)
    return Grouping(tuple(_positions(trained[part]) for part in parts), tuple(_positions(part) for part in parts), best)


def _scores(closeness: Sequence[Sequence[float]], members: int, alone: float | None) -> dict[int, float]:
    """Return {task: the affinity of the network of these members to it}."""
    tasks = _positions(members)
    if len(tasks) == 1:
        (task,) = tasks
        others = [row[task] for position, row in enumerate(closeness) if position != task]
        return {task: alone if alone is not None else fmean(others) if others else 0.0}
    return {task: fmean(closeness[other][task] for other in tasks if other != task) for task in tasks}


def _values(
    scores: Sequence[dict[int, float]], num_tasks: int, *, helpers: bool
) -> tuple[list[float], list[int]]:  # fmt: skip
    """Return for each set of tasks the total of the best network that serves it, and the tasks of that network."""
    trained = list(range(1 << num_tasks))
    values = [sum(of_set.values()) for of_set in scores]
    if helpers:
        for members, of_network in enumerate(scores):
            served = members
            while served:  # all subsets
                total = sum(of_network[task] for task in _positions(served))
                if total > values[served]:
                    values[served], trained[served] = total, members
                served = (served - 1) & members
    return values, trained


def _add_network(totals: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return the best totals with one more network, and the tasks that it serves."""
    new, last = [-inf] * len(totals), [0] * len(totals)
    for mask in range(1, len(totals)):
        lowest = mask & -mask  # the new network serves it: no partition is met twice
        rest = mask ^ lowest
        part = rest
        while True:  # all subsets of the rest
            served = part | lowest
            total = totals[mask ^ served] + values[served]
            if total > new[mask]:
                new[mask], last[mask] = total, served
            if not part:
                break
            part = (part - 1) & rest
    return new, last


def _unwind(rounds: Sequence[Sequence[int]], mask: int) -> list[int]:
    parts = []
    for last in reversed(rounds):
        parts.append(last[mask])
        mask ^= last[mask]
    return parts


def _positions(mask: int) -> tuple[int, ...]:
    return tuple(position for position in range(mask.bit_length()) if mask >> position & 1)
