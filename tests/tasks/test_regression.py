"""Regression, against scikit-learn and NumPy."""

import math

import numpy
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mtlrun.tasks import Regression

NAN = math.nan


def random_split(size, offset=0.0):
    generator = torch.Generator().manual_seed(0)
    target = offset + torch.randn(90, size, generator=generator)
    return target + 0.5 * torch.randn(90, size, generator=generator), target


def evaluate(task, prediction, target, sizes=(1, 50, 7, 32)):
    meter = task.meter()
    for part, labels in zip(prediction.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


@pytest.mark.parametrize("flat", [True, False])
def test_values_for_one_number_are_those_of_scikit_learn_over_the_whole_split(flat):
    prediction, target = random_split(1)
    found = evaluate(Regression(), prediction, target.squeeze(1) if flat else target)
    assert found == pytest.approx(
        {
            "loss": root_mean_squared_error(target, prediction) ** 2,
            "rmse": root_mean_squared_error(target, prediction),
            "mae": mean_absolute_error(target, prediction),
            "r2": r2_score(target, prediction),
            "spearman": spearmanr(target, prediction).statistic,
        },
        rel=1e-5,
    )


def test_values_for_several_numbers_are_pooled_over_them():
    prediction, target = random_split(3)
    found = evaluate(Regression(3), prediction, target)
    difference = (prediction - target).flatten()
    assert found == pytest.approx(
        {
            "loss": difference.square().mean().item(),
            "rmse": difference.square().mean().sqrt().item(),
            "mae": difference.abs().mean().item(),
            "r2": r2_score(target, prediction),  # the mean over the numbers
        },
        rel=1e-5,
    )
    assert evaluate(Regression(4), *(torch.cat([x, torch.ones(90, 1)], dim=1) for x in (prediction, target)))[
        "r2"
    ] == pytest.approx(found["r2"])


def test_the_rank_correlation_is_that_of_scipy_with_ties_and_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    target = 1.7e9 + torch.randint(0, 9, (90,), generator=generator).double()
    prediction = (target - 1.7e9).float()[:, None] + torch.randint(-4, 5, (90, 1), generator=generator)
    expected = spearmanr(target.numpy(), prediction.squeeze(1).numpy()).statistic
    assert 0.3 < expected < 0.9
    assert evaluate(Regression(), prediction, target)["spearman"] == pytest.approx(expected, rel=1e-12)
    assert evaluate(Regression(), prediction * 0, target)["spearman"] == 0
    assert math.isnan(evaluate(Regression(), prediction.fill_(NAN), target)["spearman"])


@pytest.mark.parametrize("offset", [100.0, 2000.0])
def test_r2_is_precise_for_targets_far_from_zero(offset):
    prediction, target = random_split(1, offset)
    found = evaluate(Regression(), prediction, target)
    assert found["r2"] == pytest.approx(r2_score(target.double(), prediction.double()), abs=0.005)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("mse", (0.25 + 4 + 0 + 9) / 4), ("l1", (0.5 + 2 + 0 + 3) / 4), ("huber", (0.125 + 1.5 + 0 + 2.5) / 4)],
)
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_loss_is_the_mean_of_the_criterion(criterion, expected, shape):
    prediction = torch.tensor([[1.5], [-1.0], [3.0], [4.0]])
    target = torch.tensor([1.0, 1.0, 3.0, 1.0]).view(shape)
    assert Regression(criterion=criterion).loss(prediction, target).item() == pytest.approx(expected)


def test_a_sample_with_any_nan_is_missing():
    assert Regression().labeled(torch.tensor([1.0, NAN, 0.0])).tolist() == [True, False, True]
    assert Regression(2).labeled(torch.tensor([[1.0, NAN], [0, 0], [NAN, NAN]])).tolist() == [False, True, False]
    assert Regression().labeled(torch.tensor([[1.0], [NAN]])).tolist() == [True, False]


def test_output_size_is_the_number_of_numbers():
    assert Regression(5).output_size == 5


def test_directions():
    of_several = {"loss": "min", "rmse": "min", "mae": "min", "r2": "max"}
    assert Regression().directions() == of_several | {"spearman": "max"}
    assert Regression(2).directions() == of_several
    assert Regression().main_metric == "rmse"


@pytest.mark.parametrize(("size", "shape"), [(1, (4,)), (1, (4, 1)), (3, (4, 3))])
def test_targets_of_the_right_shape_are_accepted_with_gaps(size, shape):
    target = torch.zeros(shape)
    target[0] = NAN
    Regression(size).check_targets(target)


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        (1, [1, 2], r"targets must be floating-point numbers, found torch\.int64"),
        (2, [1.0, 2.0], r"targets must hold 2 numbers per sample, found shape \(2,\)"),
        (1, [[1.0, 2.0]], r"targets must hold 1 numbers per sample, found shape \(1, 2\)"),
        (1, [1.0, math.inf], "targets must be finite, or NaN where a label is missing, found inf at sample 1$"),
        (1, [1.0, -math.inf], "found -inf at sample 1$"),
        (1, [[NAN], [math.inf]], "found inf at sample 1$"),
        (2, [[1.0, 2.0], [NAN, 0.0], [3.0, math.inf]], "found inf at sample 2, number 1$"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(size, target, message):
    with pytest.raises(ValueError, match=message):
        Regression(size).check_targets(torch.tensor(target))


def test_arguments_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="num_outputs must be >= 1, found 0"):
        Regression(0)
    with pytest.raises(ValueError, match="criterion must be one of 'mse', 'l1', 'huber', found 'hinge'"):
        Regression(criterion="hinge")


def fitted(target, chunks=(40, 50), **options):
    task = Regression(target.shape[1] if target.dim() == 2 else 1, standardize=True, **options)
    task.fit(target.split(chunks))
    return task


@pytest.mark.parametrize("criterion", ["mse", "l1", "huber"])
def test_standardized_targets_have_losses_in_standard_deviations_and_metrics_in_their_own_unit(criterion):
    generator = torch.Generator().manual_seed(1)
    target = torch.tensor([5e4, 3.0, -0.01]) * torch.randn(90, 3, generator=generator) + torch.tensor([3e5, 0.0, 7.0])
    target = target.double()
    target[3, 1] = target[88, 0] = NAN
    task = fitted(target, criterion=criterion)
    there = target[~target.isnan().any(dim=1)].numpy()  # what is trained on
    mean, std = there.mean(axis=0), there.std(axis=0)
    assert task.learned() == {"means": pytest.approx(mean, rel=1e-12), "stds": pytest.approx(std, rel=1e-12)}
    prediction = torch.randn(88, 3, generator=generator)
    numbers = prediction.double().numpy() * std + mean
    torch.testing.assert_close(task.to_own_unit(prediction), torch.tensor(numbers))
    torch.testing.assert_close(task.from_own_unit(torch.tensor(numbers)), prediction.double())
    found = evaluate(task, prediction, torch.tensor(there), sizes=(1, 80, 7))
    plain = Regression(3, criterion=criterion).loss(prediction.double(), torch.tensor((there - mean) / std))
    assert found == pytest.approx(
        {
            "loss": plain.item(),
            "rmse": root_mean_squared_error(there.flatten(), numbers.flatten()),
            "mae": mean_absolute_error(there, numbers),
            "r2": r2_score(there, numbers),
        },
        rel=1e-5,
    )
    assert task.loss(prediction, torch.tensor(there)).dtype == torch.float32  # whatever the targets are


def test_timestamps_that_differ_by_a_second_keep_their_differences():
    times = 1_700_000_000 + torch.randperm(90, generator=torch.Generator().manual_seed(0)).double()
    task = fitted(times)
    prediction = ((times - times.mean()) / times.std(correction=0)).float()[:, None]
    found = evaluate(task, prediction, times)
    assert found["loss"] < 1e-12
    assert found["rmse"] < 1e-4  # seconds
    assert found["r2"] == pytest.approx(1, abs=1e-9)


def test_a_mean_is_described_with_the_digits_that_its_standard_deviation_needs():
    cases = {
        (1e9, 1.0): "mean 1000000044.5, standard deviation 25.9792",
        (-1e9, 1.0): "mean -999999955.5, standard deviation 25.9792",
        (0.0, 1.0): "mean 44.5, standard deviation 25.9792",
        (1e-6, 0.0): "mean 1e-06, standard deviation 1",
    }
    for (low, step), expected in cases.items():
        target = low + step * torch.arange(90).double()
        assert f"({expected})" in fitted(target).describe_learned()


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_a_number_that_is_constant_in_training_keeps_its_unit_and_any_other_has_deviation_1(unit):
    target = torch.stack(
        [unit * torch.arange(90).double() / 7, torch.full((90,), 0.1 * unit, dtype=torch.float64)], dim=1
    )
    task = fitted(target)
    standardized = task.from_own_unit(target)
    assert standardized[:, 0].std(correction=0).item() == pytest.approx(1)
    assert task.target_std[1] == 1
    assert standardized[:, 1].abs().max() == 0


def test_errors_in_a_very_large_unit_are_finite():
    target = 1e30 * torch.randn(90, generator=torch.Generator().manual_seed(0)).double()
    found = evaluate(fitted(target), torch.zeros(90, 1), target)
    assert found["rmse"] == pytest.approx(target.std(correction=0).item())


def test_without_a_label_in_training_nothing_is_standardized():
    task = fitted(torch.full((90,), NAN))
    assert task.learned() == {"means": [0.0], "stds": [1.0]}
    assert Regression().learned() == {}


def test_what_is_learned_does_not_depend_on_the_number_of_threads():
    target = 1e6 * torch.rand(300_000, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            found.append(fitted(target, chunks=100_000).learned())
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]
    assert found[0]["stds"] == pytest.approx([numpy.std(target.double().numpy())], rel=1e-12)
