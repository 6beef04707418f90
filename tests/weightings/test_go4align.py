"""GO4Align."""

from itertools import combinations

import numpy
import pytest
import torch

from mtlrun.weightings import GO4Align, combine
from mtlrun.weightings.go4align import group_means

LOSSES = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)


def make(num_tasks=3, **options):
    weighting = GO4Align(**options)
    weighting.setup(num_tasks)
    return weighting


def weights(weighting, losses=LOSSES):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), losses)


def slow_group_means(values, num_groups):
    """Try all ways to cut the sorted values into groups."""
    order = numpy.argsort(values, kind="stable")
    best, found = numpy.inf, None
    for cuts in combinations(range(1, len(values)), num_groups - 1):
        groups = numpy.split(order, cuts)
        distance = sum(((values[group] - values[group].mean()) ** 2).sum() for group in groups)
        if distance < best:
            best, found = distance, numpy.empty(len(values))
            for group in groups:
                found[group] = values[group].mean()
    return found


def test_weights_of_groups_of_one_are_the_indicators():
    # step_size 0 keeps p at 1/3: v = (sum of the losses) / (3 L)
    assert weights(make(num_groups=3, step_size=0.0)).tolist() == pytest.approx([5.5 / (3 * x) for x in (0.5, 1, 4)])


def test_tasks_of_a_group_share_its_mean():
    # v = 3.667, 1.833, 0.458: the last two are nearest
    last = (5.5 / 3 + 5.5 / 12) / 2
    assert weights(make(num_groups=2, step_size=0.0)).tolist() == pytest.approx([5.5 / 1.5, last, last])


def test_one_group_weighs_all_tasks_alike():
    mean = (5.5 / 1.5 + 5.5 / 3 + 5.5 / 12) / 3
    assert weights(make(num_groups=1, step_size=0.0)).tolist() == pytest.approx([mean] * 3)


def test_indicators_follow_the_recursion_written_out():
    weighting = make(num_groups=3, step_size=0.1)
    shares = numpy.ones(3) / 3
    for step in range(6):
        losses = LOSSES * torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64) ** step
        shares = shares * numpy.exp(-0.1 * losses.numpy())
        shares /= shares.sum()
        expected = shares * losses.sum().item() / losses.numpy()
        assert weights(weighting, losses).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_equal_losses_are_weighed_by_one():
    assert weights(make(), torch.full((3,), 0.7, dtype=torch.float64)).tolist() == pytest.approx([1, 1, 1])


def test_indicators_of_a_long_run_of_large_losses_stay_finite():
    weighting = make(step_size=1.0)
    for _ in range(3):
        assert weights(weighting, 1e4 * LOSSES).isfinite().all()


def test_more_groups_than_tasks_leave_each_task_its_own():
    assert torch.equal(weights(make(num_groups=9)), weights(make(num_groups=3)))


def test_groups_are_made_of_the_tasks_of_the_batch(take_step):
    weighting = make(num_groups=2, step_size=0.0)
    found = take_step(weighting, torch.eye(2), torch.tensor([1.0, 3.0]), active=[0, 2])
    assert found.tolist() == pytest.approx([4 / 2, 4 / 6])
    assert weighting.risk.tolist() == [1, 0, 3]


@pytest.mark.parametrize("num_groups", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_grouping_is_the_best_of_all(num_groups, seed):
    generator = numpy.random.default_rng(seed)
    values = generator.lognormal(size=8)
    expected = slow_group_means(values, num_groups)
    assert group_means(torch.tensor(values), num_groups).tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_grouping_does_not_depend_on_the_scale(scale):
    values = torch.tensor(numpy.random.default_rng(0).lognormal(size=40))
    assert (scale * group_means(values, 4)).tolist() == pytest.approx(group_means(scale * values, 4).tolist())


def test_grouping_of_values_that_lie_close_together_is_the_best_of_all():
    values = 1e9 + numpy.random.default_rng(0).lognormal(size=8)
    found = group_means(torch.tensor(values), 3) - 1e9
    assert found.tolist() == pytest.approx((slow_group_means(values, 3) - 1e9).tolist())


def test_equal_values_are_their_own_means():
    assert group_means(torch.full((5,), 0.3, dtype=torch.float64), 3).tolist() == pytest.approx([0.3] * 5)


def test_grouping_leaves_the_given_values_as_they_are():
    values = torch.tensor([3.0, 1.0])
    group_means(values, 2)[0] = 7
    assert values.tolist() == [3, 1]


def test_losses_that_are_not_finite_are_left_to_the_step_to_refuse():
    assert not weights(make(), torch.tensor([torch.nan, 1.0, 2.0], dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_groups": 0}, "num_groups must be >= 1, found 0"),
        ({"step_size": -1e-4}, "step_size must be >= 0, found -0.0001"),
        ({"step_size": float("nan")}, "step_size must be >= 0, found nan"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GO4Align(**options)
