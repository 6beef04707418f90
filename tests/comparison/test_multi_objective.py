"""The multi-objective view against brute force, inclusion and exclusion, and the library moocore."""

import builtins
import itertools
import math

import moocore
import numpy
import pytest

from mtlrun.comparison.pareto import dominates, hypervolume, non_dominated
from mtlrun.comparison.preferences import win_fractions
from mtlrun.comparison.profiles import performance_profile, thresholds
from mtlrun.errors import DataError

RANDOM = numpy.random.default_rng(16)


def test_dominance_respects_directions_and_ties():
    assert dominates([0.9, 1.0], [0.8, 1.0], ["max", "min"])
    assert not dominates([0.9, 1.0], [0.8, 0.9], ["max", "min"])
    assert not dominates([0.9, 1.0], [0.9, 1.0], ["max", "min"])
    assert not dominates([0.9, math.nan], [0.8, 1.0], ["max", "min"])
    assert non_dominated([[1, 1], [2, 0], [0, 2], [0, 0], [1, 1], [math.nan, 9]], ["max", "max"]) == [
        True, True, True, False, True, False,
    ]  # fmt: skip


def test_front_is_that_of_moocore():
    for objectives in (1, 2, 3, 5):
        points = RANDOM.integers(0, 6, (30, objectives)).astype(float)
        maximise = [True, False, True, False, True][:objectives]
        expected = moocore.is_nondominated(points, maximise=maximise, keep_weakly=True)
        found = non_dominated(points.tolist(), ["max" if up else "min" for up in maximise])
        assert found == expected.tolist()


def by_inclusion_and_exclusion(points, reference):
    volume = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            volume += (-1) ** (size + 1) * numpy.prod(numpy.clip(numpy.min(chosen, axis=0) - reference, 0, None))
    return volume


def test_hypervolume_against_inclusion_and_exclusion_and_moocore():
    for objectives in (1, 2, 3, 4):
        points = RANDOM.random((7, objectives))
        reference = [0.2] * objectives
        expected = by_inclusion_and_exclusion(points, reference)
        assert hypervolume(points.tolist(), reference, ["max"] * objectives) == pytest.approx(expected)
        flipped = points * [-1, *[1] * (objectives - 1)]
        directions = ["min", *["max"] * (objectives - 1)]
        assert hypervolume(flipped.tolist(), [-0.2, *reference[1:]], directions) == pytest.approx(expected)
    points = RANDOM.random((50, 2))
    assert hypervolume(points.tolist(), [1, 1], ["min", "min"]) == pytest.approx(
        moocore.hypervolume(points, ref=[1, 1])
    )
    # the example of moocore's manual
    assert hypervolume([[5, 5], [4, 6], [2, 7], [7, 4]], [10, 10], ["min", "min"]) == 38


def test_hypervolume_ignores_what_is_not_better_than_the_reference():
    assert hypervolume([[0.1, 0.9], [math.nan, 1.0]], [0.2, 0.2], ["max", "max"]) == 0
    assert hypervolume([], [0.2, 0.2, 0.2], ["max"] * 3) == 0


def test_hypervolume_of_three_objectives_names_the_library_that_it_needs(monkeypatch):
    def without(name, *arguments, importing=builtins.__import__, **options):
        if name == "moocore":
            raise ImportError(name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert hypervolume([[1, 2]], [0, 0], ["max", "max"]) == 2
    with pytest.raises(DataError, match=r"3 objectives needs the library moocore.*pip install 'mtlrun\[pareto\]'"):
        hypervolume([[1, 1, 1]], [0, 0, 0], ["max"] * 3)


def test_wins_over_two_tasks_are_exact():
    # equal at the weight 1/4 of the first task: 0.6 w + 0.5 (1 - w) = 0.3 w + 0.6 (1 - w)
    assert win_fractions([[0.6, 0.5], [0.3, 0.6]]) == pytest.approx([0.75, 0.25])
    assert win_fractions([[0.6, 0.5], [0.6, 0.5], [0.1, 0.1]]) == pytest.approx([0.5, 0.5, 0])
    # on the front, but in a dent of it: the best for no weights
    assert win_fractions([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]]) == pytest.approx([0.5, 0, 0.5])
    for _ in range(5):
        scores = RANDOM.random((6, 2))
        weights = numpy.linspace(0, 1, 100_001)[:, None]
        winners = (weights * scores[:, 0] + (1 - weights) * scores[:, 1]).argmax(axis=1)
        assert win_fractions(scores.tolist()) == pytest.approx(numpy.bincount(winners, minlength=6) / 100_001, abs=1e-4)


def test_wins_over_more_tasks_are_fractions_of_the_simplex():
    # a third of a triangle each, by symmetry; and the second of two methods wins where w1 < 1/2, on 3/4 of the triangle
    assert win_fractions(numpy.eye(3).tolist()) == pytest.approx([1 / 3] * 3, abs=0.02)
    assert win_fractions([[1, 0, 0], [0, 1, 1]]) == pytest.approx([0.25, 0.75], abs=0.02)
    assert win_fractions([[0.5], [0.7], [0.7]]) == pytest.approx([0, 0.5, 0.5])
    assert win_fractions([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) == [0.5, 0.5]
    assert win_fractions([]) == []


def test_performance_profile_counts_scores_above_each_threshold():
    assert performance_profile([0.1, 0.5, 0.5, math.nan, 0.9], [0.0, 0.1, 0.5, 0.9]) == [1, 0.75, 0.25, 0]
    assert performance_profile([], [0.0]) == []
    taus = thresholds([[0.2, 0.4], [1.0, math.inf]])
    assert (len(taus), taus[0], taus[-1]) == (101, 0.2, 1.0)
    scores = RANDOM.random(40).tolist()
    taus = numpy.linspace(0, 1, 20_001).tolist()
    area = numpy.trapezoid(performance_profile(scores, taus), taus)
    assert area == pytest.approx(numpy.mean(scores), abs=1e-3)  # of scores in [0, 1]
