"""The statistics against SciPy, statsmodels, scikit-posthocs and slow references, on random numbers."""

import itertools
import math
import types
import warnings

import numpy
import pytest
import scipy.stats

from mtlrun.comparison.statistics.friedman import critical_difference, make_blocks, rank_test
from mtlrun.comparison.statistics.improvement import interquartile_mean, probability_of_improvement
from mtlrun.comparison.statistics.intervals import Interval, bootstrap_interval, standard_error, t_interval
from mtlrun.comparison.statistics.multiple import holm
from mtlrun.comparison.statistics.paired import compare
from mtlrun.comparison.statistics.power import detectable_effect, needed_repetitions, power
from mtlrun.comparison.statistics.ranks import rank_groups

RANDOM = numpy.random.default_rng(16)


@pytest.fixture(scope="module")
def references():
    """Libraries that take seconds to import, and whose own imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scikit_posthocs import posthoc_nemenyi_friedman
        from statsmodels.stats.multitest import multipletests
        from statsmodels.stats.power import TTestPower

    return types.SimpleNamespace(nemenyi=posthoc_nemenyi_friedman, multipletests=multipletests, power=TTestPower())


def by_seed(values):
    return dict(enumerate(values))


def test_t_interval_is_that_of_scipy():
    for count in (2, 3, 5, 30):
        values = RANDOM.normal(3, 2, count).tolist()
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert t_interval(values) == pytest.approx((expected.low, expected.high))
    assert t_interval([1.0]) is None
    assert t_interval([1.0, 1.0, 1.0]) is None


def test_interval_over_folds_is_wider_by_nadeau_and_bengio():
    values = [0.1, 0.3, 0.2, 0.5, 0.4]
    assert standard_error(values, 1 / 4) == pytest.approx(standard_error(values) * math.sqrt(1 + 5 / 4))
    low, high = t_interval(values)
    wide = t_interval(values, test_to_train=1 / 4)
    assert wide.high - wide.low == pytest.approx((high - low) * 1.5)


def test_bootstrap_interval_is_bca_of_scipy_and_near_the_t_interval_for_many_values():
    values = RANDOM.exponential(1, 200).tolist()
    found = bootstrap_interval(values)
    expected = scipy.stats.bootstrap((values,), numpy.mean, rng=numpy.random.default_rng(5)).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found == pytest.approx(t_interval(values), abs=0.03)
    low, high = bootstrap_interval([0.1, 0.2, 0.4])
    assert 0.1 - 1e-9 <= low < high <= 0.4 + 1e-9
    assert bootstrap_interval([0.2, 0.2, 0.2]) is None
    assert bootstrap_interval([0.2]) is None
    shifted = bootstrap_interval(values, [value + 1 for value in values])
    assert shifted.low < -1 < shifted.high
    assert shifted.excludes_zero()
    assert not Interval(-1.0, 0.5).excludes_zero()


def test_paired_difference_is_the_paired_t_test_in_the_direction_of_the_metric():
    first, second = RANDOM.normal(1, 1, 7), RANDOM.normal(0.5, 1, 7)
    expected = scipy.stats.ttest_rel(first, second)
    bounds = expected.confidence_interval(0.95)
    up = compare(by_seed(first), by_seed(second), "max", bootstrap=True)
    assert up.paired
    assert up.counts == (7, 7)
    assert up.gain == pytest.approx((first - second).mean())
    assert up.p == pytest.approx(expected.pvalue)
    assert up.interval == pytest.approx((bounds.low, bounds.high))
    assert up.deviation == pytest.approx((first - second).std(ddof=1))
    assert up.bootstrap == bootstrap_interval((first - second).tolist())
    down = compare(by_seed(first), by_seed(second), "min")
    assert (down.gain, down.p) == pytest.approx((-up.gain, up.p))
    assert down.interval == pytest.approx((-up.interval.high, -up.interval.low))
    assert down.bootstrap is None


def test_only_shared_repetitions_are_paired_and_values_that_are_not_finite_are_missing():
    first = {0: 1.0, 1: 2.0, 2: 2.5, 3: math.nan, 9: 100.0}
    second = {1: 1.0, 0: 0.9, 2: 2.0, 3: 1.0, 8: -50.0}
    found = compare(first, second, "max")
    expected = scipy.stats.ttest_rel([1.0, 2.0, 2.5], [0.9, 1.0, 2.0])
    assert (found.counts, found.p) == ((3, 3), pytest.approx(expected.pvalue))
    assert compare({0: math.inf}, second, "max") is None


def test_without_shared_repetitions_it_is_welchs_test():
    first, second = RANDOM.normal(1, 1, 5), RANDOM.normal(0, 3, 8)
    found = compare(by_seed(first), dict(enumerate(second, start=4)), "max")
    expected = scipy.stats.ttest_ind(first, second, equal_var=False)
    bounds = expected.confidence_interval(0.95)
    assert (found.paired, found.counts) == (False, (5, 8))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((bounds.low, bounds.high))
    assert math.isnan(found.deviation)
    alone = compare({0: 1.0}, {0: 2.0, 1: 3.0}, "min")
    assert (alone.gain, alone.p, alone.interval) == (1.5, None, None)


def test_equal_differences_have_the_p_value_of_the_sign_test():
    """Three seeds with the same difference would have p = 0 by t, which no three seeds can show."""
    assert compare(by_seed([0.5, 0.6, 0.7]), by_seed([0.4, 0.5, 0.6]), "max").p == 0.25
    assert compare(by_seed([0.5, 0.6]), by_seed([0.5, 0.6]), "max").p == 1
    assert compare({0: 1.0, 1: 1.0}, {2: 2.0, 3: 2.0}, "max").p is None


def test_holm_is_that_of_statsmodels(references):
    for count in (1, 2, 5, 20):
        values = (RANDOM.random(count) ** 3).tolist()
        expected = references.multipletests(values, method="holm")[1]
        assert holm(values) == pytest.approx(expected)
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([]) == []


def test_rank_is_one_plus_the_number_of_significantly_better_methods(references):
    noise = RANDOM.normal(0, 0.01, 8)
    means = [0.9, 0.9005, 0.7, 0.5]
    methods = [by_seed(mean + noise + RANDOM.normal(0, 0.01, 8)) for mean in means]
    assert rank_groups(methods, "max") == [1, 1, 3, 4]
    assert rank_groups(methods, "min") == [3, 3, 2, 1]
    for _ in range(20):  # the definition, by SciPy and statsmodels
        table = RANDOM.normal(RANDOM.normal(0, 1, (5, 1)), 0.6, (5, 4))
        pairs = list(itertools.combinations(range(5), 2))
        p = [scipy.stats.ttest_rel(table[i], table[j]).pvalue for i, j in pairs]
        found = references.multipletests(p, method="holm")[0]
        worse = [j if table[i].mean() > table[j].mean() else i for i, j in pairs]
        expected = [1 + sum(loser == k and real for loser, real in zip(worse, found, strict=True)) for k in range(5)]
        assert rank_groups([by_seed(values) for values in table], "max") == expected


def test_ranks_of_what_cannot_be_tested():
    assert rank_groups([{0: 0.9}, {0: 0.8}], "max") == [None, None]
    assert rank_groups([by_seed([0.9, 0.8]), by_seed([0.8, 0.9]), {}], "max") == [1, 1, None]
    assert rank_groups([], "max") == []


def test_noise_alone_ranks_a_method_lower_in_at_most_five_percent_of_the_tables():
    generator = numpy.random.default_rng(0)
    false = sum(
        set(rank_groups([by_seed(v) for v in generator.normal(0, 1, (4, 3))], "max")) != {1} for _ in range(600)
    )
    assert false <= 0.05 * 600 + 3 * math.sqrt(600 * 0.05 * 0.95)


def test_power_and_needed_repetitions_are_those_of_statsmodels(references):
    reference = references.power
    for effect, count in [(0.3, 10), (1.0, 5), (2.0, 3), (3.0, 3)]:
        assert power(effect, count) == pytest.approx(reference.power(effect, count, 0.05), abs=1e-6)
        assert power(-effect, count) == pytest.approx(power(effect, count))
    for effect in (0.1, 0.5, 1.0, 2.0):
        needed = needed_repetitions(effect * 0.01, 0.01)
        assert needed == math.ceil(reference.solve_power(effect, power=0.8, alpha=0.05))
        assert power(effect, needed) >= 0.8 > power(effect, needed - 1)
    assert needed_repetitions(1.0, 0.001) == 2 or power(1000.0, 2) >= 0.8
    assert needed_repetitions(1e-9, 1.0) is None
    assert needed_repetitions(0.0, 1.0) is None
    assert needed_repetitions(1.0, 0.0) is None
    assert power(1e6, 3) == 1
    assert power(detectable_effect(3), 3) == pytest.approx(0.8, abs=1e-4)
    assert detectable_effect(3) == pytest.approx(3.26, abs=0.01)


def test_power_is_how_often_simulated_tests_find_the_difference():
    draws = numpy.random.default_rng(1).normal(1.5, 1, (4000, 5))
    assert (scipy.stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(power(1.5, 5), abs=0.025)


def test_probability_of_improvement_counts_pairs():
    first, second = RANDOM.integers(0, 4, (5, 3)).astype(float), RANDOM.integers(0, 4, (4, 3)).astype(float)
    by_task = [
        numpy.mean([(a > b) + 0.5 * (a == b) for a in first[:, task] for b in second[:, task]]) for task in range(3)
    ]
    found = probability_of_improvement(first, second)
    assert found.value == pytest.approx(numpy.mean(by_task))
    assert found.interval.low < found.value < found.interval.high
    u = scipy.stats.mannwhitneyu(first[:, 0], second[:, 0]).statistic  # U / (n m) is the same probability
    assert probability_of_improvement(first[:, :1], second[:, :1]).value == pytest.approx(u / 20)
    both = probability_of_improvement(first, second).value + probability_of_improvement(second, first).value
    assert both == pytest.approx(1)
    certain = probability_of_improvement([[2.0], [3.0]], [[1.0], [0.0]])
    assert (certain.value, certain.interval) == (1, (1, 1))


def test_missing_values_are_left_out_of_the_probability_of_improvement():
    first = [[1.0, math.nan], [2.0, math.nan], [math.nan, math.nan]]
    second = [[0.0, 1.0], [1.5, 2.0], [5.0, 2.0]]
    assert probability_of_improvement(first, second).value == pytest.approx((0.5 * 0 + 3) / 6)
    assert math.isnan(probability_of_improvement([[math.nan]], [[1.0]]).value)
    assert probability_of_improvement([[1.0]], [[0.5]]).interval is None


def test_interquartile_mean_is_that_of_scipy():
    for shape in [(3, 2), (4, 4), (5, 7), (1, 1)]:
        scores = RANDOM.normal(0, 1, shape)
        assert interquartile_mean(scores).value == pytest.approx(scipy.stats.trim_mean(scores.ravel(), 0.25))
    scores[0, 0] = math.nan
    assert math.isnan(interquartile_mean(scores).value)


def test_interval_of_the_interquartile_mean_is_over_runs():
    """Tasks that go up and down with their run do not make the interval narrower; tasks with runs of their own do."""
    common = RANDOM.normal(0, 1, (8, 1)) + numpy.zeros((8, 20))
    alone = interquartile_mean(common[:, :1]).interval
    joint = interquartile_mean(common).interval
    strata = interquartile_mean(common, by_run=False).interval
    assert joint.high - joint.low == pytest.approx(alone.high - alone.low, rel=0.2)
    assert strata.high - strata.low < 0.5 * (joint.high - joint.low)


def test_friedman_and_nemenyi_are_those_of_scipy_and_scikit_posthocs(references):
    for methods, count, ties in [(3, 6, False), (5, 12, False), (4, 20, True)]:
        table = RANDOM.normal(RANDOM.normal(0, 1, methods), 1, (count, methods))
        table = table.round() if ties else table
        found = rank_test(table.tolist())
        expected = scipy.stats.friedmanchisquare(*table.T)
        assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert found.average_ranks == pytest.approx(scipy.stats.rankdata(-table, axis=1).mean(axis=0))
        p = references.nemenyi(table).to_numpy()
        for one, other in itertools.combinations(range(methods), 2):
            apart = abs(found.average_ranks[one] - found.average_ranks[other]) >= found.critical_difference
            assert apart == (p[one, other] <= 0.05)
            assert apart == (not any({one, other} <= set(group) for group in found.groups))


def test_critical_difference_has_the_values_of_demsar_and_shrinks_with_more_seeds():
    # Demšar (2006), table 5(a): q at 0.05 for 2, 5 and 10 classifiers.
    for methods, q in [(2, 1.960), (5, 2.728), (10, 3.164)]:
        expected = q * math.sqrt(methods * (methods + 1) / (6 * 14))
        assert critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)
    methods = [by_seed(RANDOM.normal(mean, 1, 12)) for mean in (0, 1, 2)]
    few = rank_test(make_blocks([([dict(itertools.islice(m.items(), 3)) for m in methods], "max")]))
    many = rank_test(make_blocks([(methods, "max")]))
    assert (few.num_blocks, many.num_blocks) == (3, 12)
    assert many.critical_difference == pytest.approx(few.critical_difference / 2)


def test_blocks_are_of_tasks_and_shared_repetitions():
    accuracy = [{0: 0.9, 1: 0.8, 2: 0.7}, {1: 0.6, 0: 0.5}]
    error = [{0: 1.0, 1: 2.0}, {0: 3.0, 1: math.nan}]
    assert make_blocks([(accuracy, "max"), (error, "min")]) == [[0.9, 0.5], [0.8, 0.6], [-1, -3]]
    assert rank_test([[1.0, 2.0]]) is None
    equal = rank_test([[1.0, 1.0, 1.0]] * 4)
    assert (equal.average_ranks, equal.p, equal.groups) == ([2, 2, 2], 1, [[0, 1, 2]])
