"""Frozen splits by class."""

import numpy
from sklearn.model_selection import train_test_split

from mtlrun.datasets.generation.splitting import split_by_class, stratified_split


def test_each_class_has_the_same_fraction_in_each_part():
    labels = numpy.array([0] * 10 + [1] * 20 + [2] * 5)
    val, test, train = split_by_class(labels, [0.2, 0.2], 0)
    assert numpy.bincount(labels[val]).tolist() == [2, 4, 1]
    assert numpy.bincount(labels[test]).tolist() == [2, 4, 1]
    assert sorted([*val, *test, *train]) == list(range(35))
    assert (numpy.diff(train) > 0).all()


def test_a_small_class_stays_whole_in_the_last_part():
    val, rest = split_by_class([0, 0, 5], [0.2], 0)
    assert (val.tolist(), rest.tolist()) == ([], [0, 1, 2])


def test_parts_follow_from_the_seed_and_are_frozen():
    first, other = (split_by_class([0] * 12, [0.25], seed)[0].tolist() for seed in (0, 1))
    # Another value means that published numbers no longer hold for what these datasets give.
    assert first == [2, 7, 9]
    assert other != first
    numpy.random.seed(5)
    assert split_by_class([0] * 12, [0.25], 0)[0].tolist() == first


def test_a_stratified_split_is_scikit_learns():
    random = numpy.random.default_rng(0)
    for seed in range(50):
        labels = random.integers(0, 2 + seed % 9, size=40 + 13 * seed) * 3  # many ties among the classes' remainders
        labels = numpy.repeat(numpy.arange(4), 11) if seed == 0 else labels
        for fraction in (0.2, 0.25, 0.5):
            everything = numpy.arange(len(labels))
            expected = train_test_split(everything, test_size=fraction, stratify=labels, random_state=seed)
            parts = stratified_split(labels, fraction, seed)
            assert [part.tolist() for part in parts] == [part.tolist() for part in expected]
