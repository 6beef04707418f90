"""Depth, by hand and against NumPy."""

import math

import numpy
import pytest
import torch

from mtlrun.tasks import Depth, MeasuresPerformance

NAN = math.nan
SIZES = [1, 5, 2, 4]


@pytest.fixture(params=[0.0, NAN], ids=["zero", "nan"])
def split(request):
    """Return predictions and depths of 12 images; some pixels have none, said in either way."""
    generator = torch.Generator().manual_seed(0)
    target = 0.5 + 5 * torch.rand(12, 1, 5, 6, generator=generator)
    prediction = target + torch.randn(12, 1, 5, 6, generator=generator)
    target[torch.rand(12, 1, 5, 6, generator=generator) < 0.2] = request.param
    target[0, :, 1:] = request.param
    return prediction, target


def evaluate(task, prediction, target, sizes=SIZES):
    meter = task.meter()
    for part, labels in zip(prediction.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


def flat(prediction, target):
    """Return both at the pixels that have a depth, in float64."""
    valid = target > 0
    return prediction[valid].double().numpy(), target[valid].double().numpy()


@pytest.mark.parametrize("channel", [True, False])
def test_values_are_those_of_all_labeled_pixels_together(split, channel):
    prediction, target = split
    found = evaluate(Depth(), prediction, target if channel else target.squeeze(1))
    predicted, true = flat(prediction, target)
    error = numpy.abs(predicted - true)
    assert found == pytest.approx(
        {"loss": error.mean(), "abs_err": error.mean(), "rel_err": (error / true).mean()}, rel=1e-6
    )


def test_values_are_not_means_over_batches(split):
    prediction, target = split
    whole = evaluate(Depth(), prediction, target)
    parts = [
        evaluate(Depth(), *pair, [len(pair[0])])
        for pair in zip(prediction.split(SIZES), target.split(SIZES), strict=True)
    ]
    for name, value in whole.items():
        assert abs(value - numpy.mean([part[name] for part in parts])) > 1e-3


def test_sums_keep_their_digits_over_a_large_split():
    meter = Depth().meter()
    meter.update(torch.full((1, 1, 1, 1), 2.0**26), torch.full((1, 1, 1), 1.0))
    for _ in range(9):
        meter.update(torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1), 1.0))
    found = meter.compute()
    assert found["abs_err"] * 10 == found["rel_err"] * 10 == 2**26 + 9  # 2**26 - 1 is 2**26 in float32


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("l1", (0.5 + 2 + 3) / 3), ("mse", (0.25 + 4 + 9) / 3), ("huber", (0.125 + 1.5 + 2.5) / 3)],
)
@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 1, 2, 1)])
@pytest.mark.parametrize("missing", [0.0, NAN])
def test_loss_is_the_mean_of_the_criterion_over_the_labeled_pixels(criterion, expected, shape, missing):
    prediction = torch.tensor([1.5, 7.0, 3.0, 4.0]).view(2, 1, 2, 1)
    target = torch.tensor([1.0, missing, 1.0, 1.0]).view(shape)
    task = Depth(criterion=criterion)
    assert task.loss(prediction, target).item() == pytest.approx(expected)
    assert task.num_terms(target) == 3


@pytest.mark.parametrize("criterion", ["l1", "mse", "huber"])
@pytest.mark.parametrize("predicted", [0.0, NAN, math.inf])
def test_pixels_without_a_depth_reach_no_gradient(split, criterion, predicted):
    prediction, target = split
    valid = target > 0
    prediction = torch.where(valid, prediction, predicted).requires_grad_()
    Depth(criterion).loss(prediction, target).backward()
    assert torch.equal(prediction.grad != 0, valid)
    assert prediction.grad.isfinite().all()


def test_a_sample_with_any_depth_is_labeled():
    target = torch.tensor([[0.0, 0.0], [NAN, 2.0], [NAN, 0.0]]).view(3, 1, 2)
    assert Depth().labeled(target).tolist() == [False, True, False]
    assert Depth().labeled(target[:, None]).tolist() == [False, True, False]


def test_depths_of_another_precision_leave_that_of_the_loss_alone():
    loss = Depth().loss(torch.ones(1, 1, 2, 2), torch.full((1, 2, 2), 3.0, dtype=torch.float64))
    assert loss.dtype == torch.float32
    assert loss.item() == 2


def test_output_and_directions():
    task = Depth()
    assert task.output_size == 1
    assert task.dense
    assert task.nonnegative_loss
    assert task.directions() == {"loss": "min", "abs_err": "min", "rel_err": "min"}
    assert task.main_metric == "abs_err"
    assert not isinstance(task, MeasuresPerformance)


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 1, 2, 2)])
def test_targets_of_the_right_shape_are_accepted_with_gaps(shape):
    target = torch.rand(shape)
    target[0] = NAN
    target[1] = 0
    Depth().check_targets(target)


@pytest.mark.parametrize("wrong", [-1.0, math.inf, -math.inf])
@pytest.mark.parametrize("channel", [True, False])
def test_targets_that_are_no_depths_are_refused_with_their_place(wrong, channel):
    target = torch.ones(130, 1, 4, 5)
    target[129, 0, 2, 3] = wrong
    message = rf"finite and > 0, or 0 or NaN where a pixel has no depth, found {wrong:g} at sample 129, pixel \[2, 3\]"
    with pytest.raises(ValueError, match=message):
        Depth().check_targets(target if channel else target.squeeze(1))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.ones(2, 3, 3, dtype=torch.int64), r"targets must be floating-point numbers, found torch\.int64"),
        (torch.ones(2), r"\[samples, height, width\] or \[samples, 1, height, width\], found \(2,\)"),
        (torch.ones(2, 3, 4, 4), r"\[samples, height, width\] or \[samples, 1, height, width\], found \(2, 3, 4, 4\)"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Depth().check_targets(target)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="targets are maps of 3 x 4 pixels, and predictions of 4 x 3"):
        Depth().loss(torch.zeros(1, 1, 4, 3), torch.ones(1, 3, 4))


@pytest.mark.parametrize("argument", ["lr", "weight"])
def test_learning_rate_and_weight_must_be_positive(argument):
    with pytest.raises(ValueError, match=rf"{argument} must be > 0,( or size,)? found 0\.0"):
        Depth(**{argument: 0.0})
