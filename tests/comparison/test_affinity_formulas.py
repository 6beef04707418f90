"""Association of labels against SciPy, and CKA against its definition."""

import numpy
import pytest
import scipy.stats

from mtlrun.comparison.affinity.associations import (
    Labels,
    associate,
    correlation_ratio,
    cramers_v,
    overlap,
    spearman,
)
from mtlrun.comparison.affinity.features import linear_cka


def table(a, b):
    return numpy.array([[((a == x) & (b == y)).sum() for y in numpy.unique(b)] for x in numpy.unique(a)])


def test_cramers_v_is_scipys_with_the_correction_for_bias():
    random = numpy.random.default_rng(0)
    for n, classes, noise in [(500, (3, 5), 0.3), (80, (2, 2), 0.1), (60, (4, 3), 1.0)]:
        a = random.integers(0, classes[0], n)
        b = numpy.where(random.random(n) < noise, random.integers(0, classes[1], n), a % classes[1])
        counts = table(a, b)
        r, c = counts.shape
        phi2 = scipy.stats.contingency.association(counts, method="cramer", correction=False) ** 2 * min(r - 1, c - 1)
        corrected = max(0, phi2 - (r - 1) * (c - 1) / (n - 1))
        smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
        assert cramers_v(a, b) == pytest.approx(numpy.sqrt(corrected / smaller))
        assert cramers_v(a, b) == pytest.approx(cramers_v(b, a))
    assert cramers_v(numpy.arange(40) % 4, (numpy.arange(40) + 1) % 4) == pytest.approx(1)


def test_correlation_ratio_is_that_of_scipys_analysis_of_variance():
    random = numpy.random.default_rng(0)
    for n, k, strength in [(200, 4, 2.0), (50, 3, 0.2), (100, 2, 0.5)]:
        groups = random.integers(0, k, n)
        numbers = strength * groups + random.standard_normal(n)
        f = scipy.stats.f_oneway(*(numbers[groups == group] for group in range(k))).statistic
        eta2 = f * (k - 1) / (f * (k - 1) + n - k)
        epsilon2 = 1 - (1 - eta2) * (n - 1) / (n - k)
        assert correlation_ratio(groups, numbers) == pytest.approx(numpy.sqrt(max(0, epsilon2)))
    assert correlation_ratio(groups, 3.0 * groups) == pytest.approx(1)


def test_rank_correlation_is_scipys():
    random = numpy.random.default_rng(0)
    a = random.integers(0, 6, 100).astype(float)  # with ties
    b = a + random.standard_normal(100)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_independent_labels_are_associated_by_chance_only_a_little():
    random = numpy.random.default_rng(0)
    found = []
    for _ in range(30):
        one = Labels("categories", random.integers(0, 10, (100, 1)).astype(float))
        other = Labels("categories", random.integers(0, 10, (100, 1)).astype(float))
        found.append(associate(one, other))
    assert numpy.mean(found) < 0.1  # 0.3 without the correction


def test_labels_are_compared_where_both_are_there():
    random = numpy.random.default_rng(0)
    numbers = random.standard_normal((100, 2))
    with_holes = numbers.copy()
    with_holes[:30, 0] = numpy.nan
    with_holes[20:60, 1] = numpy.nan
    one, other = Labels("numbers", numbers[:, :1]), Labels("numbers", with_holes)
    apart = abs(
        scipy.stats.spearmanr(
            numbers[[*range(20), *range(60, 100)], 0], numbers[[*range(20), *range(60, 100)], 1]
        ).statistic
    )
    assert associate(one, other) == pytest.approx((1 + apart) / 2)
    assert associate(other, one) == pytest.approx((1 + apart) / 2)
    assert overlap(one, other) == 0.9  # samples 20 to 29 have none of the second task's numbers
    kinds = Labels("categories", (numbers[:, :1] > 0).astype(float))
    assert associate(kinds, one) == associate(one, kinds) == correlation_ratio(kinds.values[:, 0], numbers[:, 0])

    constant = Labels("categories", numpy.zeros((100, 1)))
    assert numpy.isnan(associate(constant, one))
    nowhere = Labels("numbers", numpy.full((100, 1), numpy.nan))
    assert numpy.isnan(associate(nowhere, one))
    assert overlap(nowhere, one) == 0
    few = numbers[:, :1].copy()
    few[9:] = numpy.nan
    assert numpy.isnan(associate(Labels("numbers", few), one))


def test_cka_is_its_definition_and_has_its_invariances():
    random = numpy.random.default_rng(0)
    x, y = random.standard_normal((50, 8)), random.standard_normal((50, 3, 2))
    y[:, :2, 0] += x[:, :2]
    flat = y.reshape(50, 6)
    # Equation 1 of the paper: HSIC of the Gram matrices with the centering matrix.
    center = numpy.eye(50) - 1 / 50
    hsic = lambda k, l: numpy.trace(k @ center @ l @ center)  # noqa: E731, E741
    k, l = x @ x.T, flat @ flat.T  # noqa: E741
    assert linear_cka(x, y) == pytest.approx(hsic(k, l) / numpy.sqrt(hsic(k, k) * hsic(l, l)))
    a, b = x - x.mean(axis=0), flat - flat.mean(axis=0)
    norm = numpy.linalg.norm
    assert linear_cka(x, y) == pytest.approx(norm(b.T @ a) ** 2 / (norm(a.T @ a) * norm(b.T @ b)))
    rotation = numpy.linalg.qr(random.standard_normal((8, 8)))[0]
    assert linear_cka(x @ rotation, y) == pytest.approx(linear_cka(x, y))
    assert linear_cka(3 * x + 5, y) == pytest.approx(linear_cka(x, y))
    assert linear_cka(x, x @ rotation) == pytest.approx(1)
    skewed = x @ numpy.diag([10, 1, 1, 1, 1, 1, 1, 0.1])
    assert linear_cka(skewed, y) != pytest.approx(linear_cka(x, y), rel=0.01)
    assert numpy.isnan(linear_cka(numpy.ones((50, 3)), y))
