"""Performance profiles: how often a method gets more than a score, for every score.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), section
4.3, whose run-score distributions these are; the idea is that of Dolan & Moré, "Benchmarking optimization software with
performance profiles" (Mathematical Programming 2002).
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import isfinite

POINTS = 101


def thresholds(methods: Sequence[Sequence[float]]) -> list[float]:
    """Return 101 equally spaced scores from the lowest to the highest of all methods; fewer if these are equal."""
    finite = [score for scores in methods for score in scores if isfinite(score)]
    if not finite:
        return []
    low, high = min(finite), max(finite)
    if low == high:
        return [low]
    return [low + (high - low) * step / (POINTS - 1) for step in range(POINTS)]


def performance_profile(scores: Sequence[float], taus: Sequence[float]) -> list[float]:
    """Return for each threshold the fraction of scores above it; empty without scores.

    A curve that is above another everywhere belongs to the better method, stochastically; the area between a curve and
    a start is the mean score above it.

    Args:
        scores: of all pairs of a task and a repetition, on a scale that is common to the tasks, higher is better.
        taus: thresholds.
    """
    ordered = sorted(score for score in scores if isfinite(score))
    if not ordered:
        return []
    return [1 - bisect_right(ordered, tau) / len(ordered) for tau in taus]
