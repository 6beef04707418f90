"""Averages of predictions: what a kind of task averages over models, and the way back to the output of a head."""

import math

import pytest
import torch
from scipy.special import expit, softmax

from mtlrun.deployment.combined.combining import mean, vote
from mtlrun.tasks import (
    AveragesPredictions,
    BinaryClassification,
    Classification,
    Count,
    Depth,
    Detection,
    MultiLabel,
    Objective,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)

MAP = (4, 5)


def with_scale(task, target):
    task.fit([target])
    return task


def cases():
    """Return {name: (task, shape of the head's output, targets)}."""
    torch.manual_seed(1)
    count = 60
    numbers, counts = 300 + 20 * torch.randn(count, 2, dtype=torch.float64), torch.randint(9, (count,)).double()
    maps = (count, *MAP)
    return {
        "binary": (BinaryClassification(class_weights=[1.0, 3.0]), (1,), torch.randint(2, (count,))),
        "classes": (Classification(4, label_smoothing=0.1), (4,), torch.randint(4, (count,))),
        "labels": (MultiLabel(3), (3,), torch.randint(-1, 2, (count, 3))),
        "levels": (Ordinal(5), (4,), torch.randint(5, (count,))),
        "corn": (Ordinal(5, "corn"), (4,), torch.randint(5, (count,))),
        "number": (Regression(), (1,), numbers[:, 0]),
        "numbers": (with_scale(Regression(2, standardize=True), numbers), (2,), numbers),
        "count": (Count(), (1,), counts),
        "scaled count": (with_scale(Count(standardize=True), counts), (1,), counts),
        "classes of pixels": (Segmentation(4), (4, *MAP), torch.randint(-1, 4, maps)),
        "depth": (Depth(), (1, *MAP), torch.rand(maps)),
        "normals": (SurfaceNormals(), (3, *MAP), torch.nn.functional.normalize(torch.randn(count, 3, *MAP), dim=1)),
    }


def metrics(task, prediction, target):
    labeled = task.labeled(target)
    meter = task.meter()
    meter.update(prediction[labeled], target[labeled])
    return meter.compute()


def test_the_average_of_one_prediction_or_of_equal_ones_is_measured_as_that_is():
    for name, (task, shape, target) in cases().items():
        prediction = 2 * torch.randn(len(target), *shape)
        if name == "depth":
            prediction = prediction.abs()
        expected = metrics(task, prediction, target)
        for copies in (1, 3):
            back = task.from_average(mean([task.to_average(prediction)] * copies))
            assert back.dtype == torch.float32, name
            assert metrics(task, back, target) == pytest.approx(expected, rel=2e-5, abs=2e-6), name
        if task.distribution_dim is not None:
            total = task.to_average(prediction).sum(dim=task.distribution_dim)
            assert torch.allclose(total, torch.ones_like(total)), name


def test_extreme_predictions_stay_finite_and_keep_their_order():
    for name, (task, shape, target) in cases().items():
        prediction = torch.linspace(-60, 60, len(target) * math.prod(shape)).reshape(len(target), *shape)
        back = task.from_average(task.to_average(prediction))
        assert back.isfinite().all(), name
        if name in ("binary", "labels", "levels", "number", "count"):
            assert torch.allclose(back, prediction, rtol=1e-5), name


def test_averages_are_of_probabilities_and_of_numbers_in_their_unit():
    one, other = torch.tensor([[1.0, -2.0]]), torch.tensor([[-0.5, 3.0]])

    def average(task, *predictions):
        return task.decode(task.from_average(mean([task.to_average(each) for each in predictions])))

    z = [each.double().numpy() for each in (one, other)]
    expected = (softmax(z[0], axis=1) + softmax(z[1], axis=1)) / 2
    assert average(Classification(2), one, other).probabilities.numpy() == pytest.approx(expected)
    expected = (expit(z[0]) + expit(z[1])) / 2
    assert average(MultiLabel(2), one, other).probabilities.numpy() == pytest.approx(expected)
    assert average(Regression(2), one, other).prediction.numpy() == pytest.approx((z[0] + z[1]) / 2)
    assert average(Count(), one[:, :1], other[:, :1]).prediction.item() == pytest.approx((math.e + math.exp(-0.5)) / 2)
    above = [expit(each) for each in z]
    expected = [(above[0][0, 0] + above[1][0, 0]) / 2, (above[0].prod() + above[1].prod()) / 2]
    corn = Ordinal(3, "corn")
    found = corn.to_average(corn.from_average(mean([corn.to_average(one), corn.to_average(other)])))
    assert found[0, :, 1].tolist() == pytest.approx(expected)


def test_a_scale_of_its_own_is_undone_before_numbers_are_averaged():
    tasks = [with_scale(Regression(standardize=True), torch.tensor([low, low + 10.0])) for low in (0.0, 100.0)]
    averages = [task.to_average(torch.zeros(1, 1)) for task in tasks]
    assert tasks[0].decode(tasks[0].from_average(mean(averages))).prediction.item() == pytest.approx(55)


def test_a_vote_is_won_by_most_and_a_tie_by_the_mean_probability():
    def probabilities(*rows):
        return [torch.tensor([row], dtype=torch.float64) for row in rows]

    won = vote(probabilities([0.4, 0.35, 0.25], [0.4, 0.35, 0.25], [0.0, 1.0, 0.0]), dim=1)
    assert won.argmax() == 0  # whose mean probability is lower
    assert won.tolist()[0] == pytest.approx([(2 + 0.8 / 3) / 4, (1 + 1.7 / 3) / 4, (0.5 / 3) / 4])
    assert vote(probabilities([0.6, 0.4, 0.0], [0.1, 0.9, 0.0]), dim=1).argmax() == 1
    for name, (task, shape, target) in cases().items():
        if task.distribution_dim is None:
            continue
        predictions = [2 * torch.randn(len(target), *shape) for _ in range(3)]
        if name == "levels":  # whose thresholds are in order, if they are learned
            predictions = [each.sort(dim=1, descending=True).values for each in predictions]
        voted = task.from_average(vote([task.to_average(each) for each in predictions], task.distribution_dim))
        if isinstance(task, Classification | Segmentation):
            votes = torch.nn.functional.one_hot(torch.stack([each.argmax(dim=1) for each in predictions]), 4).sum(dim=0)
            decided = votes.amax(dim=-1) > 1
            assert (voted.argmax(dim=1) == votes.argmax(dim=-1))[decided].all(), name
        else:
            decided = torch.stack([task.decode(each).prediction for each in predictions]).median(dim=0).values
            assert task.decode(voted).prediction.tolist() == decided.tolist(), name


def test_targets_have_the_form_of_averages():
    for name, (task, shape, target) in cases().items():
        if task.dense:
            with pytest.raises(NotImplementedError):
                task.observed(target)
            continue
        average, observed = task.to_average(torch.zeros(len(target), *shape)), task.observed(target)
        wanted = list(average.shape)
        if task.distribution_dim is not None:
            del wanted[task.distribution_dim]
        assert list(observed.shape) == wanted, name
    assert Ordinal(3).observed(torch.tensor([0, 1, 2])).tolist() == [[0, 0], [1, 0], [1, 1]]


def test_boxes_and_points_have_no_average():
    for kind in (Detection, Objective):
        assert not issubclass(kind, AveragesPredictions)
