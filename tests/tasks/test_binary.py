"""Binary classification, against scikit-learn and by hand."""

import math

import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    roc_auc_score,
)

from mtlrun.tasks import BinaryClassification, Classification, MultiLabel

SIZES = [1, 50, 7, 32]


@pytest.fixture
def split():
    """Return logits and labels, a quarter of them 1."""
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(90, generator=generator) < 0.25).long()
    return torch.randn(90, 1, generator=generator) + target[:, None] - 0.3, target


def evaluate(task, logits, target, sizes=SIZES):
    meter = task.meter()
    for part, labels in zip(logits.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


def test_values_are_those_of_scikit_learn_over_the_whole_split(split):
    logits, target = split
    found = evaluate(BinaryClassification(), logits, target)
    score = logits.squeeze(1).double().sigmoid()
    assert found == pytest.approx(
        {
            "loss": log_loss(target, score),
            "auroc": roc_auc_score(target, score),
            "average_precision": average_precision_score(target, score),
            "accuracy": accuracy_score(target, score > 0.5),
            "f1": f1_score(target, score > 0.5),
            "balanced_accuracy": balanced_accuracy_score(target, score > 0.5),
            "mcc": matthews_corrcoef(target, score > 0.5),
            "log_loss": log_loss(target, score),
            "ece": calibration_error(score, target),
        },
        rel=1e-5,
    )
    assert len({round(value, 3) for value in found.values()}) == 8  # only loss and log_loss are the same


def calibration_error(probability, outcome, bins=15):
    """Return the expected calibration error, bin by bin; a bin includes its upper end."""
    probability, outcome, error = probability.double().numpy(), outcome.numpy().astype(float), 0.0
    for number in range(bins):
        inside = (probability > number / bins) & (probability <= (number + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(outcome[inside].mean() - probability[inside].mean())
    return error


def test_log_loss_is_without_weights_smoothing_and_focal_factor(split):
    logits, target = split
    expected = log_loss(target, logits.squeeze(1).double().sigmoid())
    for options in ({"class_weights": [1, 5]}, {"label_smoothing": 0.2}, {"criterion": "focal"}):
        found = evaluate(BinaryClassification(**options), logits, target)
        assert found["log_loss"] == pytest.approx(expected, rel=1e-6)
        assert found["loss"] != pytest.approx(expected, rel=0.05)
    extreme = evaluate(BinaryClassification(), torch.tensor([[-800.0], [900.0]]), torch.tensor([1, 1]), [2])
    assert extreme["log_loss"] == pytest.approx(400)
    assert extreme["ece"] == pytest.approx(0.5)


def test_decisions_that_are_all_the_same_are_worth_nothing():
    found = evaluate(BinaryClassification(), torch.full((6, 1), -2.0), torch.tensor([0, 0, 0, 0, 1, 1]), [3, 3])
    assert found["mcc"] == 0
    assert found["balanced_accuracy"] == 0.5
    perfect = evaluate(BinaryClassification(), torch.tensor([[-30.0], [30.0], [30.0]]), torch.tensor([0, 1, 1]), [3])
    assert perfect["mcc"] == pytest.approx(1)
    assert perfect["ece"] == pytest.approx(0, abs=1e-12)


def test_logits_between_0_and_1_are_no_probabilities():
    # In its first batch all logits look like probabilities; 0.4 is a yes, and ranks below 2 and above -1.
    found = evaluate(
        BinaryClassification(), torch.tensor([[0.4], [0.1], [-1.0], [2.0]]), torch.tensor([1, 1, 0, 0]), [2, 2]
    )
    assert found["accuracy"] == 3 / 4
    assert found["auroc"] == 1 / 2


@pytest.mark.parametrize("low", [30.0, -60.0, 0.0, 0.2, 1e4, -1e-30])
@pytest.mark.parametrize("task", [BinaryClassification(), MultiLabel(2)])
def test_logits_are_ranked_as_they_are_wherever_they_lie(low, task):
    # Neighbors in float32, some of them equal: what scikit-learn sees as a tie is one, and nothing else is.
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(0, 40, (200, 1), generator=generator)
    logits, neighbor = torch.full((200, 1), low), torch.tensor(math.inf)
    for step in range(40):
        logits = torch.where(steps > step, logits.nextafter(neighbor), logits)
    target = (steps + 20 * torch.randn(200, 1, generator=generator) > 25).long()
    logits, target = (tensor.expand(-1, task.output_size) for tensor in (logits, target))
    found = evaluate(task, logits, target.squeeze(1) if task.output_size == 1 else target, [50, 100, 50])
    labels, score = target[:, 0], logits[:, 0].double()
    assert 0.6 < found["auroc"] < 1
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, score), rel=1e-6)
    precision = found["map" if task.output_size > 1 else "average_precision"]
    assert precision == pytest.approx(average_precision_score(labels, score), rel=1e-6)
    assert found["f1"] == pytest.approx(f1_score(labels, score > 0, zero_division=0), rel=1e-6)


def test_all_negatives_above_all_positives_is_the_worst_ranking():
    found = evaluate(BinaryClassification(), torch.tensor([[40.0], [45.0], [50.0]]), torch.tensor([1, 0, 0]), [3])
    assert found["auroc"] == 0
    assert found["average_precision"] == pytest.approx(1 / 3)
    found = evaluate(BinaryClassification(), torch.tensor([[40.0], [math.nan], [50.0]]), torch.tensor([1, 0, 0]), [3])
    assert math.isnan(found["auroc"])
    assert math.isnan(found["average_precision"])


def test_equal_values_in_the_first_batch_merge_no_metrics(split):
    logits, target = split
    right = torch.where(target > 0, 3.0, -3.0)[:, None]  # all metrics are 1 there
    found = evaluate(BinaryClassification(), torch.cat([right, logits]), torch.cat([target, target]), [90, 90])
    both, score = torch.cat([target, target]), torch.cat([right, logits]).squeeze(1).double().sigmoid()
    assert found["auroc"] == pytest.approx(roc_auc_score(both, score), rel=1e-5)
    assert found["average_precision"] == pytest.approx(average_precision_score(both, score), rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy_score(both, score > 0.5))
    assert found["f1"] == pytest.approx(f1_score(both, score > 0.5))


@pytest.mark.parametrize(("label", "precision"), [(0, math.nan), (1, 1.0)])
def test_a_split_of_one_class_has_no_auc(label, precision):
    found = evaluate(BinaryClassification(), torch.tensor([[1.0], [-1.0]]), torch.tensor([label, label]), [1, 1])
    assert math.isnan(found["auroc"])
    assert found["average_precision"] == pytest.approx(precision, nan_ok=True)
    assert found["accuracy"] == 1 / 2


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("class_weights", ["none", [0.5, 2.0]])
def test_targets_of_any_type_and_shape_mean_the_same(split, dtype, shape, class_weights):
    logits, target = split
    task = BinaryClassification(class_weights=class_weights)
    other = target.to(dtype).reshape(shape)
    task.check_targets(other)
    assert task.labeled(other).tolist() == [True] * 90
    assert evaluate(task, logits, other) == evaluate(task, logits, target)
    assert task.performance(logits, other) == task.performance(logits, target)
    task.fit([other])
    assert task.class_weights.tolist() == pytest.approx(
        [90 / (2 * n) for n in (90 - int(target.sum()), int(target.sum()))]
    )


def test_minus_one_and_nan_are_missing_labels():
    task = BinaryClassification()
    assert task.labeled(torch.tensor([0.0, math.nan, 1.0, -1.0])).tolist() == [True, False, True, False]
    assert task.labeled(torch.tensor([[0], [-1], [1]])).tolist() == [True, False, True]
    task.fit([torch.tensor([0.0, math.nan, -1.0]), torch.tensor([1.0, 1.0, 1.0])])
    assert task.class_weights.tolist() == pytest.approx([4 / 2, 4 / 6])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weights", ["none", [0.5, 3.0]])
def test_it_is_a_classification_of_two_classes(split, label_smoothing, class_weights):
    logits, target = split
    pair = torch.cat([torch.zeros_like(logits), logits], dim=1)
    task, other = (
        BinaryClassification(class_weights, label_smoothing=label_smoothing),
        Classification(2, class_weights, label_smoothing=label_smoothing),
    )
    torch.testing.assert_close(task.loss(logits, target), other.loss(pair, target))
    assert task.num_terms(target) == other.num_terms(target)
    assert task.performance(logits, target) == other.performance(pair, target)
    assert evaluate(task, logits, target)["loss"] == pytest.approx(task.loss(logits, target).item(), rel=1e-5)


def test_weighted_loss_by_hand():
    # Probabilities of the labels 1/4, 1/2 with weights 3, 1: (3 log 4 + log 2) / 4.
    task = BinaryClassification(class_weights=[1.0, 3.0])
    loss = task.loss(torch.tensor([[-math.log(3)], [0.0]]), torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((3 * math.log(4) + math.log(2)) / 4)


def test_output_and_directions():
    task = BinaryClassification()
    assert task.output_size == 1
    assert task.nonnegative_loss
    assert not task.needs_fit
    names = ["auroc", "average_precision", "accuracy", "f1", "balanced_accuracy", "mcc"]
    assert task.directions() == dict.fromkeys(["loss", "log_loss", "ece"], "min") | dict.fromkeys(names, "max")
    assert task.main_metric in names


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0, 1, 2], "must be 0 or 1, or -1 or NaN where a label is missing, found 2 at sample 2"),
        ([0.0, 0.5], r"found 0\.5 at sample 1"),
        ([math.inf, 1.0], "found inf at sample 0"),
        ([[0, 1], [1, 0]], r"one number per sample, found shape \(2, 2\)"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        BinaryClassification().check_targets(torch.tensor(target))


@pytest.mark.parametrize("target", [[0, 1, -1], [0.0, math.nan, -1.0], [[1], [0]], []])
def test_targets_that_can_be_labels_are_accepted(target):
    BinaryClassification().check_targets(torch.tensor(target))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), found 1\.0"),
        ({"class_weights": [1.0]}, "class_weights must be 2 numbers, one for each class, found 1"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BinaryClassification(**arguments)
