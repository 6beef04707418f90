"""Surface normals, by hand and against NumPy."""

import math

import numpy
import pytest
import torch

from mtlrun.tasks import MeasuresPerformance, SurfaceNormals

NAN = math.nan
SIZES = [1, 5, 2, 4]
RESOLUTION = 1 / 256


def turned(*degrees):
    """Return predictions that are so far from the targets, which all are (0, 0, -1): two maps [1, 3, 1, n]."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    prediction = torch.stack([angles.sin(), torch.zeros_like(angles), -angles.cos()]).float()
    target = torch.tensor([0.0, 0.0, -1.0])[:, None].expand(3, len(degrees))
    return prediction[None, :, None], target[None, :, None]


@pytest.fixture(params=[0.0, NAN], ids=["zero", "nan"])
def split(request):
    """Return predictions of any length and unit normals of 12 images; some pixels have none, said in either way."""
    generator = torch.Generator().manual_seed(0)
    target = torch.nn.functional.normalize(torch.randn(12, 3, 5, 6, generator=generator), dim=1)
    prediction = (target + 0.5 * torch.randn(12, 3, 5, 6, generator=generator)) * torch.rand(
        12, 1, 5, 6, generator=generator
    )
    missing = torch.rand(12, 1, 5, 6, generator=generator) < 0.2
    missing[0, :, 1:] = True
    return prediction, torch.where(missing, request.param, target)


def evaluate(prediction, target, sizes=None):
    meter = SurfaceNormals().meter()
    for part, labels in zip(prediction.split(sizes or SIZES), target.split(sizes or SIZES), strict=True):
        meter.update(part, labels)
    return meter.compute()


def cosines(prediction, target):
    """Return the cosine at each pixel that has a normal, in float64."""
    valid = target.abs().sum(dim=1) > 0
    predicted, true = (maps.double().movedim(1, -1)[valid].numpy() for maps in (prediction, target))
    lengths = numpy.linalg.norm(predicted, axis=1) * numpy.linalg.norm(true, axis=1)
    return (predicted * true).sum(axis=1) / lengths


def test_values_are_those_of_all_labeled_pixels_together(split):
    found = evaluate(*split)
    angles = numpy.degrees(numpy.arccos(cosines(*split)))
    assert found.pop("median_angle") == pytest.approx(numpy.median(angles), abs=RESOLUTION)
    assert found == pytest.approx(
        {
            "loss": (1 - cosines(*split)).mean(),
            "mean_angle": angles.mean(),
            "within_11": (angles < 11.25).mean(),
            "within_22": (angles < 22.5).mean(),
            "within_30": (angles < 30).mean(),
        },
        rel=1e-5,
    )


def test_values_are_not_means_over_batches(split):
    prediction, target = split
    whole = evaluate(prediction, target)
    parts = [evaluate(*pair, [len(pair[0])]) for pair in zip(prediction.split(SIZES), target.split(SIZES), strict=True)]
    for name, value in whole.items():
        assert abs(value - numpy.mean([part[name] for part in parts])) > 1e-3


def test_thresholds_are_those_in_the_names():
    shares = evaluate(*turned(0, 11.249, 11.251, 22.499, 22.501, 29.999, 30.001, 180), [1])
    assert (shares["within_11"], shares["within_22"], shares["within_30"]) == (2 / 8, 4 / 8, 6 / 8)


@pytest.mark.parametrize(
    ("degrees", "median"),
    [
        ([20, 70, 21], 21),
        ([10, 50], 30),
        ([10, 10, 50, 90], 30),
        ([5], 5),
        ([180], 180),
        ([0, 0], 0),
        ([40] * 1001, 40),
    ],
)
def test_median_angle_is_that_of_all_pixels(degrees, median):
    assert evaluate(*turned(*degrees), [1])["median_angle"] == pytest.approx(median, abs=RESOLUTION)


def test_metrics_with_equal_values_in_the_first_batch_are_not_merged():
    meter = SurfaceNormals().meter()
    meter.update(*turned(0, 0))
    meter.update(*turned(15, 25))
    found = meter.compute()
    assert (found["within_11"], found["within_22"], found["within_30"]) == (2 / 4, 3 / 4, 1)
    assert found["mean_angle"] == pytest.approx(10)


@pytest.mark.parametrize("degrees", [0.01, 0.1, 90, 179.99])
def test_angles_are_precise(degrees):
    assert evaluate(*turned(degrees), [1])["mean_angle"] == pytest.approx(degrees, rel=1e-4)


def test_loss_is_one_minus_the_cosine_and_the_length_does_not_matter():
    prediction, target = turned(0, 60, 90, 180)
    scale = torch.tensor([0.01, 1.0, 100.0, 3.0])
    loss = SurfaceNormals().loss(prediction * scale, target)
    assert loss.item() == pytest.approx((0 + 0.5 + 1 + 2) / 4)
    assert SurfaceNormals().loss(prediction, target * 0.7).item() == pytest.approx(loss.item())


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        # Differences of the components x and z, over three.
        ("l1", (0 + (math.sqrt(3) / 2 + 1 / 2) + (1 + 1) + 2) / 3 / 4),
        ("angle", (0 + math.pi / 3 + math.pi / 2 + math.pi) / 4),
    ],
)
def test_other_losses_by_hand(criterion, expected):
    prediction, target = turned(0, 60, 90, 180)
    prediction = torch.cat([prediction, torch.ones(1, 3, 1, 4)], dim=-1) * 3
    target = torch.cat([target, torch.full((1, 3, 1, 4), NAN)], dim=-1) * 0.7
    for dtype in (torch.float32, torch.float64):
        loss = SurfaceNormals(criterion).loss(prediction.to(dtype), target)
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(expected)


def test_the_angle_is_that_of_the_metric(split):
    prediction, target = split
    meter = SurfaceNormals("angle").meter()
    for part, labels in zip(prediction.split(SIZES), target.split(SIZES), strict=True):
        meter.update(part, labels)
    found = meter.compute()
    assert math.degrees(found["loss"]) == pytest.approx(found["mean_angle"], rel=1e-5)
    assert found["mean_angle"] == pytest.approx(numpy.degrees(numpy.arccos(cosines(*split))).mean(), rel=1e-5)


@pytest.mark.parametrize("degrees", [1e-4, 60.0, 179.999])
def test_the_gradient_of_the_angle_has_the_length_one(degrees):
    prediction, target = turned(degrees)
    prediction = prediction.double().requires_grad_()
    SurfaceNormals("angle").loss(prediction, target).backward()
    assert prediction.grad.norm().item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("criterion", ["cosine", "l1", "angle"])
def test_gradients_are_finite_at_angles_of_0_and_180_degrees(criterion):
    target = turned(0, 0, 0)[1]
    prediction = (target * torch.tensor([3.0, -2.0, 0.0])).requires_grad_()
    loss = SurfaceNormals(criterion).loss(prediction, target)
    loss.backward()
    assert loss.isfinite()
    assert prediction.grad.isfinite().all()


def test_loss_is_never_negative():
    target = torch.nn.functional.normalize(torch.randn(50, 3, 8, 8), dim=1)
    losses = torch.stack([SurfaceNormals().loss(sample * 3.3, sample) for sample in target.split(1)])
    assert losses.min() >= 0
    assert losses.max() < 1e-12


def test_gradient_is_that_of_the_cosine(split):
    prediction, target = split
    valid = target.abs().sum(dim=1) > 0
    prediction = prediction.requires_grad_()
    (found,) = torch.autograd.grad(SurfaceNormals().loss(prediction, target), prediction)
    cosine = torch.nn.functional.cosine_similarity(prediction, target, dim=1)[valid]
    (expected,) = torch.autograd.grad((1 - cosine).mean(), prediction)
    expected = torch.where(valid[:, None], expected, 0.0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("criterion", ["cosine", "l1", "angle"])
@pytest.mark.parametrize("predicted", [0.0, NAN, math.inf])
def test_pixels_without_a_normal_reach_no_gradient(split, predicted, criterion):
    prediction, target = split
    valid = target.abs().sum(dim=1, keepdim=True) > 0
    prediction = torch.where(valid, prediction, predicted).requires_grad_()
    SurfaceNormals(criterion).loss(prediction, target).backward()
    assert torch.equal((prediction.grad != 0).any(dim=1, keepdim=True), valid)
    assert prediction.grad.isfinite().all()


def test_a_normal_with_any_nan_is_missing():
    target = torch.tensor([[NAN, 1.0, 0.0], [0.0, 1.0, 0.0]]).view(2, 3, 1, 1)
    assert SurfaceNormals().labeled(target).tolist() == [False, True]
    assert SurfaceNormals().num_terms(target) == 1


def test_a_prediction_of_zero_has_a_finite_loss_and_gradient():
    prediction = torch.zeros(1, 3, 1, 2, requires_grad=True)
    loss = SurfaceNormals().loss(prediction, turned(0, 0)[1])
    loss.backward()
    assert loss.isfinite()
    assert prediction.grad.isfinite().all()


def test_a_sample_with_any_normal_is_labeled():
    target = torch.zeros(3, 3, 2, 2)
    target[1, 2, 0, 1] = -1
    target[2] = NAN
    assert SurfaceNormals().labeled(target).tolist() == [False, True, False]
    assert SurfaceNormals().num_terms(target) == 1


def test_output_and_directions():
    task = SurfaceNormals()
    assert task.output_size == 3
    assert task.dense
    assert task.nonnegative_loss
    assert task.directions() == {
        "loss": "min", "mean_angle": "min", "median_angle": "min",
        "within_11": "max", "within_22": "max", "within_30": "max",
    }  # fmt: skip
    assert task.main_metric == "mean_angle"
    assert not isinstance(task, MeasuresPerformance)


def test_targets_of_the_right_shape_are_accepted_with_gaps():
    target = torch.nn.functional.normalize(torch.randn(4, 3, 2, 2), dim=1)
    target[0], target[1] = NAN, 0
    target[2] *= 0.8
    SurfaceNormals().check_targets(target)


def test_normals_that_are_kept_as_colors_are_refused_with_their_place():
    target = torch.zeros(130, 3, 4, 5)
    target[129, :, 2, 3] = torch.tensor([0.5, 0.5, 1.0])
    message = r"vectors of length 1, or 0 or NaN where .* found \(0\.5, 0\.5, 1\) at sample 129, pixel \[2, 3\]"
    with pytest.raises(ValueError, match=message):
        SurfaceNormals().check_targets(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.ones(2, 3, 3, 3, dtype=torch.uint8), r"targets must be floating-point numbers, found torch\.uint8"),
        (torch.ones(2, 3), r"shape \[samples, 3, height, width\], found \(2, 3\)"),
        (torch.zeros(2, 5, 5, 3), r"shape \[samples, 3, height, width\], found \(2, 5, 5, 3\)"),
        (torch.full((1, 3, 2, 2), math.inf), "found \\(inf, inf, inf\\) at sample 0"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        SurfaceNormals().check_targets(target)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="targets are maps of 3 x 4 pixels, and predictions of 4 x 3"):
        SurfaceNormals().loss(torch.zeros(1, 3, 4, 3), torch.ones(1, 3, 3, 4))


def test_an_unknown_criterion_is_refused():
    with pytest.raises(ValueError, match="criterion must be one of 'cosine', 'l1', 'angle', found 'mse'"):
        SurfaceNormals("mse")


@pytest.mark.parametrize("argument", ["lr", "weight"])
def test_learning_rate_and_weight_must_be_positive(argument):
    with pytest.raises(ValueError, match=rf"{argument} must be > 0,( or size,)? found 0\.0"):
        SurfaceNormals(**{argument: 0.0})
