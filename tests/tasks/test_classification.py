"""Classification, against scikit-learn."""

import math

import numpy
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, matthews_corrcoef
from torchmetrics.functional.classification import multiclass_calibration_error

from mtlrun.tasks import Classification


@pytest.fixture
def split():
    """Return logits and labels with classes of unequal frequency."""
    generator = torch.Generator().manual_seed(0)
    target = torch.multinomial(torch.tensor([0.6, 0.25, 0.1, 0.05]), 90, replacement=True, generator=generator)
    logits = torch.randn(90, 4, generator=generator) + torch.nn.functional.one_hot(target, 4)
    return logits, target


def evaluate(task, logits, target, sizes):
    meter = task.meter()
    for part, labels in zip(logits.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


def test_values_are_those_of_scikit_learn_over_the_whole_split(split):
    logits, target = split
    found = evaluate(Classification(4), logits, target, [1, 50, 7, 32])
    chosen = logits.argmax(dim=1)
    assert found["accuracy"] == pytest.approx(accuracy_score(target, chosen))
    assert found["f1"] == pytest.approx(f1_score(target, chosen, average="macro"))
    assert found["loss"] == pytest.approx(log_loss(target, logits.double().softmax(dim=1).numpy()), rel=1e-5)
    assert found["accuracy"] != pytest.approx(found["f1"], abs=0.01)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, chosen))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(target, chosen))
    assert found["log_loss"] == pytest.approx(log_loss(target, logits.double().softmax(dim=1).numpy()))
    expected = multiclass_calibration_error(logits.double().softmax(dim=1), target, 4, n_bins=15)
    assert found["ece"] == pytest.approx(float(expected), rel=1e-5)


def test_a_class_without_labels_or_decisions_is_left_out_of_the_means(split):
    logits, target = split
    wide = torch.cat([logits, torch.full((90, 3), -99.0)], dim=1)
    found, expected = (evaluate(Classification(k), x, target, [90]) for k, x in ((7, wide), (4, logits)))
    assert found == pytest.approx(expected)
    one = evaluate(Classification(4), logits, torch.zeros(90, dtype=torch.int64), [90])
    assert one["balanced_accuracy"] == one["accuracy"]
    assert math.isnan(one["mcc"])


def test_loss_is_the_mean_cross_entropy():
    logits, target = torch.tensor([[0.0, 0.0], [numpy.log(3), 0.0]]), torch.tensor([0, 1])
    assert Classification(2).loss(logits, target).item() == pytest.approx((numpy.log(2) + numpy.log(4)) / 2)


def test_label_smoothing_spreads_over_all_classes():
    logits, target = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log_p = logits.log_softmax(dim=1)[0]
    expected = -(0.9 * log_p[0] + 0.1 * log_p.mean())
    assert Classification(3, label_smoothing=0.1).loss(logits, target).item() == pytest.approx(expected.item())


def test_minus_one_is_a_missing_label():
    mask = Classification(3).labeled(torch.tensor([0, -1, 2, -1]))
    assert mask.tolist() == [True, False, True, False]


def test_output_size_is_the_number_of_classes():
    assert Classification(7).output_size == 7


def test_directions():
    assert Classification(3).directions() == {
        "loss": "min", "accuracy": "max", "f1": "max", "balanced_accuracy": "max", "mcc": "max", "log_loss": "min",
        "ece": "min",
    }  # fmt: skip
    assert Classification(3).main_metric == "accuracy"


def test_targets_in_range_or_missing_are_accepted():
    Classification(3).check_targets(torch.tensor([0, 1, 2, -1]))
    Classification(3).check_targets(torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0, 3], r"targets must be in 0\.\.2, or -1 where a label is missing, found 3 at sample 1"),
        ([-2, 1], r"targets must be in 0\.\.2, or -1 where a label is missing, found -2 at sample 0"),
        ([0, -1, 12, 1, 5], "found 12 at sample 2"),
        ([[0], [1]], r"targets must be one number per sample, found shape \(2, 1\)"),
        ([0.0, 1.0], r"targets must be class indices of type int64, found torch\.float32"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Classification(3).check_targets(torch.tensor(target))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be >= 2, found 1"),
        ({"num_classes": 3, "label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), found 1\.0"),
        ({"num_classes": 3, "label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), found -0\.1"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classification(**arguments)
