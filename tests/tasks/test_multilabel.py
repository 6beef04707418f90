"""Several labels in one task, against scikit-learn and by hand."""

import math

import numpy
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from mtlrun.tasks import BinaryClassification, MultiLabel

SIZES = [1, 30, 9, 20]


@pytest.fixture
def split():
    """Return logits and labels of 60 samples; a third of the labels are missing, half of these as -1."""
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(60, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.2])).float()
    logits = torch.randn(60, 3, generator=generator) + target
    missing = torch.rand(60, 3, generator=generator)
    target[missing < 1 / 3] = math.nan
    target[missing < 1 / 6] = -1
    target[0, 1] = 1.0  # each sample has a label
    target[:, 2] = torch.where(target[:, 2] >= 0, target[:, 2], 0.0)
    return logits, target


def evaluate(task, logits, target, sizes=SIZES):
    meter = task.meter()
    for part, labels in zip(logits.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


def columns(logits, target):
    """Return (labels, probabilities) of each label, without what is missing."""
    there = target >= 0
    return [
        (target[there[:, k], k].numpy(), logits[there[:, k], k].double().sigmoid().numpy())
        for k in range(target.shape[1])
    ]


def test_values_are_the_means_over_the_labels_of_those_of_scikit_learn(split):
    found = evaluate(MultiLabel(3), *split)
    pairs = columns(*split)
    assert len({len(labels) for labels, _ in pairs}) == 3
    assert found["auroc"] == pytest.approx(numpy.mean([roc_auc_score(*pair) for pair in pairs]), rel=1e-5)
    assert found["map"] == pytest.approx(numpy.mean([average_precision_score(*pair) for pair in pairs]), rel=1e-5)
    assert found["f1"] == pytest.approx(numpy.mean([f1_score(y, p > 0.5) for y, p in pairs]), rel=1e-5)


def test_loss_is_the_mean_over_all_present_labels(split):
    logits, target = split
    losses = [-numpy.log(numpy.where(labels == 1, p, 1 - p)) for labels, p in columns(logits, target)]
    task = MultiLabel(3)
    assert task.loss(logits, target).item() == pytest.approx(numpy.concatenate(losses).mean(), rel=1e-5)
    assert task.num_terms(target) == sum(map(len, losses))
    assert evaluate(task, logits, target)["loss"] == pytest.approx(numpy.concatenate(losses).mean(), rel=1e-5)


def test_missing_labels_reach_no_gradient(split):
    logits, target = split
    logits.requires_grad_()
    MultiLabel(3, label_smoothing=0.1).loss(logits, target).backward()
    assert torch.equal(logits.grad != 0, target >= 0)


def test_label_smoothing_by_hand():
    loss = MultiLabel(2, label_smoothing=0.2).loss(torch.tensor([[math.log(3), 5.0]]), torch.tensor([[1, -1]]))
    assert loss.item() == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


def test_labels_that_cannot_be_ranked_are_left_out(split):
    logits, target = split
    target[:, 0] = 0  # neither AUC nor average precision
    target[:, 1] = 1  # no AUC, and an average precision of 1
    found = evaluate(MultiLabel(3), logits, target)
    _, _, last = columns(logits, target)
    assert found["auroc"] == pytest.approx(roc_auc_score(*last), rel=1e-5)
    assert found["map"] == pytest.approx((1 + average_precision_score(*last)) / 2, rel=1e-5)


def test_without_any_label_that_can_be_ranked_both_are_nan():
    found = evaluate(MultiLabel(2), torch.randn(4, 2), torch.tensor([[0, -1]] * 4), [4])
    assert math.isnan(found["auroc"])
    assert math.isnan(found["map"])
    assert math.isfinite(found["loss"])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_mean_the_same(split, dtype):
    logits, target = split
    target = target.clamp(min=0).nan_to_num(0)
    task = MultiLabel(3)
    task.check_targets(target.to(dtype))
    assert evaluate(task, logits, target.to(dtype)) == evaluate(task, logits, target)


def test_a_sample_with_any_label_is_labeled():
    target = torch.tensor([[math.nan, -1.0], [math.nan, 0.0], [1.0, 1.0]])
    assert MultiLabel(2).labeled(target).tolist() == [False, True, True]


def test_performance_is_the_fraction_of_right_labels():
    logits = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    assert MultiLabel(2).performance(logits, torch.tensor([[1, 1], [1, -1]])).item() == pytest.approx(2 / 3)


def test_output_and_directions():
    task = MultiLabel(4)
    assert task.output_size == 4
    assert task.nonnegative_loss
    assert task.directions() == {"loss": "min", "auroc": "max", "map": "max", "f1": "max"}
    assert task.main_metric == "auroc"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([[0, 1], [1, 3]]), "0 or 1, or -1 or NaN where a label is missing, found 3 at sample 1, label 1"),
        (torch.zeros(4, 3), r"shape \[samples, 2\], a column for each label, found \(4, 3\)"),
        (torch.zeros(4), r"found \(4,\)"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        MultiLabel(2).check_targets(target)


def test_missing_targets_are_accepted(split):
    MultiLabel(3).check_targets(split[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labels": 1}, "num_labels must be >= 2, found 1; one label is a BinaryClassification"),
        ({"num_labels": 3, "label_smoothing": -0.5}, r"label_smoothing must be in \[0, 1\), found -0\.5"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiLabel(**arguments)


# --------------------------------------------------------------------------------------------------- class weights


def labels_with_gaps(samples=40, labels=3):
    target = (torch.rand(samples, labels) < torch.tensor([0.5, 0.1, 0.8])[:labels]).float()
    target[:2] = torch.tensor([[0.0], [1.0]])
    target[torch.rand(samples, labels) < 0.2] = torch.nan
    target[:2, 0] = torch.tensor([0.0, 1.0])
    return target


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"criterion": "focal"}])
@pytest.mark.parametrize("weights", [[1.0, 4.0, 0.5], "balanced"])
def test_weights_of_labels_are_those_of_as_many_binary_tasks(weights, options):
    target, prediction = labels_with_gaps(), torch.randn(40, 3)
    task = MultiLabel(3, weights, **options)
    if weights == "balanced":
        assert task.needs_fit
        task.fit(target.split(7))
    total, terms, performance = 0.0, 0.0, 0.0
    for index in range(3):
        known = target[:, index] >= 0
        one = BinaryClassification(weights if weights == "balanced" else [1.0, weights[index]], **options)
        labels, logits = target[known, index], prediction[known, index, None]
        if one.needs_fit:
            one.fit([labels])
        total += one.loss(logits, labels) * one.num_terms(labels)
        performance += one.performance(logits, labels) * one.num_terms(labels)
        terms += one.num_terms(labels)
    torch.testing.assert_close(task.loss(prediction, target), total / terms)
    torch.testing.assert_close(task.num_terms(target), terms)
    torch.testing.assert_close(task.performance(prediction, target), performance / terms)


def test_balanced_no_and_yes_of_each_label_weigh_the_same():
    target = labels_with_gaps()
    task = MultiLabel(3, "balanced")
    task.fit([target])
    for index, (no, yes) in enumerate(task.label_weights.T.tolist()):
        counts = [(target[:, index] == value).sum().item() for value in (0, 1)]
        assert no * counts[0] == pytest.approx(yes * counts[1])
        assert no * counts[0] + yes * counts[1] == pytest.approx(sum(counts))


def test_weights_of_labels_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"class_weights must be 3 numbers, one for each class, found 2"):
        MultiLabel(3, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"class_weights\[\d\] must be > 0, found 0"):
        MultiLabel(2, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"no sample has 1 of label 1, numbered from 0; give the weights as a list"):
        MultiLabel(2, "balanced").fit([torch.tensor([[0, 0], [1, 0], [-1, -1]])])
