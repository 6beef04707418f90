"""Counts, against SciPy and by hand."""

import math

import numpy
import pytest
import torch
from scipy.stats import poisson, spearmanr
from sklearn.metrics import mean_poisson_deviance

from mtlrun.tasks import Count


def test_loss_is_minus_the_log_probability():
    log_rate, target = torch.tensor([[0.3], [2.0], [-4.0], [1.0]]), torch.tensor([0, 9, 0, 60])
    task = Count()
    expected = -poisson.logpmf(target.numpy(), log_rate.squeeze(1).exp().numpy())
    assert task.loss(log_rate, target).item() == pytest.approx(expected.mean(), rel=1e-5)
    meter = task.meter()
    meter.update(log_rate[:1], target[:1])
    meter.update(log_rate[1:], target[1:])
    error = log_rate.squeeze(1).exp().numpy() - target.numpy()
    assert meter.compute() == pytest.approx(
        {
            "loss": expected.mean(),
            "mae": numpy.abs(error).mean(),
            "rmse": numpy.sqrt((error**2).mean()),
            "poisson_deviance": mean_poisson_deviance(target, log_rate.squeeze(1).exp()),
            "spearman": spearmanr(target, log_rate.squeeze(1)).statistic,
        },
        rel=1e-5,
    )


def test_the_rate_that_fits_best_is_the_mean():
    target = torch.tensor([0, 1, 5, 2])
    log_rate = torch.full((4, 1), math.log(2.0), requires_grad=True)
    Count().loss(log_rate, target).backward()
    assert log_rate.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_the_loss_is_not_negative_where_it_is_least():
    target = torch.tensor([0, 1, 2, 3, 1000])
    for count in target:
        best = count.clamp(min=1e-4).log().reshape(1, 1)
        assert Count().loss(best, count.reshape(1)).item() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.uint8])
def test_targets_of_any_type_and_shape_mean_the_same(dtype):
    log_rate, target = torch.tensor([[0.3], [2.0]]), torch.tensor([3, 4])
    task, other = Count(), target.to(dtype)[:, None]
    task.check_targets(other)
    assert task.labeled(other).tolist() == [True, True]
    assert task.loss(log_rate, other) == task.loss(log_rate, target)


def test_output_directions_and_missing_labels():
    task = Count()
    assert task.output_size == 1
    assert task.nonnegative_loss
    assert task.directions() == {
        "loss": "min", "mae": "min", "rmse": "min", "poisson_deviance": "min", "spearman": "max"
    }  # fmt: skip
    assert task.main_metric == "mae"
    target = torch.tensor([0.0, -1.0, math.nan, 7.0])
    task.check_targets(target)
    assert task.labeled(target).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1.0, 2.5], r"whole numbers >= 0, or -1 or NaN where a label is missing, found 2\.5 at sample 1"),
        ([0, 3, -2], "found -2 at sample 2"),
        ([math.inf], "found inf at sample 0"),
        ([[1, 2]], r"one number per sample, found shape \(1, 2\)"),
    ],
)
def test_targets_that_cannot_be_counts_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Count().check_targets(torch.tensor(target))


def test_counts_relative_to_their_mean_are_predicted_by_a_head_near_0():
    target = torch.tensor([3000.0, 5000.0, math.nan, 4000.0, -1.0])
    task = Count(standardize=True)
    task.fit(target.split(2))
    assert task.learned() == {"mean": pytest.approx(4000)}
    there, prediction = target[task.labeled(target)], torch.tensor([[-0.2], [0.3], [0.0]])
    rate = 4000 * prediction.double().exp().squeeze(1)
    likelihood = -poisson.logpmf(there.numpy(), rate.numpy()).mean()
    assert task.loss(prediction, there).item() == pytest.approx(likelihood / 4000, rel=1e-6)
    meter = task.meter()
    meter.update(prediction, there)
    assert meter.compute()["mae"] == pytest.approx((rate - there).abs().mean().item(), rel=1e-6)
    torch.testing.assert_close(task.log_rate(prediction), rate.log())
    constant = task.constant_prediction(task.target_sums(there), there)
    assert constant.shape == (3, 1)
    assert constant.abs().max() < 1e-6


def test_the_loss_of_rare_events_is_not_divided_and_that_of_large_counts_is_exact():
    rare, large = Count(standardize=True), Count()
    rare.fit([torch.tensor([0, 0, 0, 1])])
    z = torch.tensor([[0.0]])
    assert rare.loss(z, torch.tensor([1])).item() == pytest.approx(-poisson.logpmf(1, 0.25), rel=1e-6)
    rare.fit([torch.zeros(4)])
    assert rare.log_rate(z).exp().item() == pytest.approx(0.5 / 4)  # as if there had been half an event
    log_rate = torch.tensor([[15.0]])
    count = log_rate.double().exp().round().squeeze(1)
    assert large.loss(log_rate, count).item() == pytest.approx(-poisson.logpmf(count.item(), math.exp(15)), rel=1e-5)
