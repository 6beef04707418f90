"""Segmentation, against scikit-learn and by hand."""

import numpy
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, log_loss

from mtlrun.tasks import Segmentation

SIZES = [1, 5, 2, 4]


@pytest.fixture
def split():
    """Return logits and labels of 12 images: classes of unequal frequency, some pixels without a label."""
    generator = torch.Generator().manual_seed(0)
    target = torch.multinomial(torch.tensor([0.6, 0.25, 0.1, 0.05]), 12 * 30, replacement=True, generator=generator)
    target = target.view(12, 5, 6)
    logits = torch.randn(12, 4, 5, 6, generator=generator) + torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    target[torch.rand(12, 5, 6, generator=generator) < 0.2] = -1
    target[0, 1:] = -1  # a batch of its own, with few labels
    return logits, target


def evaluate(task, logits, target, sizes=SIZES):
    meter = task.meter()
    for part, labels in zip(logits.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


def flat(logits, target):
    """Return probabilities and labels of the labeled pixels."""
    labeled = target != -1
    return logits.double().softmax(dim=1).movedim(1, -1)[labeled].numpy(), target[labeled].numpy()


def test_values_are_those_of_all_labeled_pixels_together(split):
    found = evaluate(Segmentation(4), *split)
    probabilities, labels = flat(*split)
    chosen = probabilities.argmax(axis=1)
    assert found["miou"] == pytest.approx(jaccard_score(labels, chosen, average="macro"), rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(labels, chosen), rel=1e-6)
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)


def test_values_are_not_means_over_batches(split):
    logits, target = split
    task = Segmentation(4)
    whole = evaluate(task, logits, target)
    parts = [
        evaluate(task, *pair, [len(pair[0])]) for pair in zip(logits.split(SIZES), target.split(SIZES), strict=True)
    ]
    for name, value in whole.items():
        assert abs(value - numpy.mean([part[name] for part in parts])) > 1e-3


def one_hot(classes, num_classes):
    return torch.nn.functional.one_hot(torch.tensor(classes), num_classes).movedim(-1, 1) * 10.0


def test_mean_iou_by_hand():
    target = torch.tensor([[[0, 0, 1], [1, 1, -1]]])
    prediction = one_hot([[[0, 1, 1], [1, 2, 0]]], 5)
    # 0: 1 of 2. 1: 2 of 4. 2 is predicted and nowhere: 0. 3 and 4 are neither predicted nor there: left out.
    matrix = confusion_matrix([0, 0, 1, 1, 1], [0, 1, 1, 1, 2])
    assert matrix.diagonal().tolist() == [1, 2, 0]
    found = evaluate(Segmentation(5), prediction, target, [1])
    assert found["miou"] == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)


@pytest.mark.parametrize("ignored", [255, 0])
def test_ignore_index_can_be_any_index(ignored):
    target = torch.tensor([[[ignored, 1, 2, 2]]])
    prediction = one_hot([[[1, 1, 2, 1]]], 3)
    found = evaluate(Segmentation(3, ignore_index=ignored), prediction, target, [1])
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["pixel_accuracy"] == pytest.approx(2 / 3)


def test_loss_is_the_mean_over_the_labeled_pixels_of_the_batch():
    # 1 pixel of the first image, 3 of the second: each counts the same.
    target = torch.tensor(
        [
            [[0, -1], [-1, -1]],
            [
                [
                    1,
                    1,
                ],
                [1, -1],
            ],
        ]
    )
    prediction = torch.zeros(2, 2, 2, 2)
    prediction[0, 0, 0, 0] = numpy.log(3)  # probability 3/4 for class 0
    expected = (numpy.log(4 / 3) + 3 * numpy.log(2)) / 4
    task = Segmentation(2)
    assert task.loss(prediction, target).item() == pytest.approx(expected)
    assert task.num_terms(target) == 4


def test_pixels_without_a_label_reach_no_gradient(split):
    logits, target = split
    logits = logits.requires_grad_()
    Segmentation(4).loss(logits, target).backward()
    moved = (logits.grad != 0).any(dim=1)
    assert torch.equal(moved, target != -1)


def test_label_smoothing_spreads_over_all_classes(split):
    logits, target = split
    log_p = logits.log_softmax(dim=1).movedim(1, -1)[target != -1]
    labels = target[target != -1]
    expected = -(0.9 * log_p[torch.arange(len(labels)), labels] + 0.1 * log_p.mean(dim=1)).mean()
    torch.testing.assert_close(Segmentation(4, label_smoothing=0.1).loss(logits, target), expected)


def test_a_sample_with_any_labeled_pixel_is_labeled():
    target = torch.full((3, 2, 2), -1)
    target[1, 1, 0] = 0
    assert Segmentation(2).labeled(target).tolist() == [False, True, False]


def test_performance_is_the_pixel_accuracy_of_the_batch(split):
    found = Segmentation(4).performance(*split)
    assert found.item() == pytest.approx(evaluate(Segmentation(4), *split)["pixel_accuracy"])


def test_output_and_directions():
    task = Segmentation(7)
    assert task.output_size == 7
    assert task.dense
    assert task.nonnegative_loss
    assert task.directions() == {"loss": "min", "miou": "max", "pixel_accuracy": "max"}
    assert task.main_metric == "miou"


def test_targets_in_range_or_without_label_are_accepted():
    Segmentation(3).check_targets(torch.tensor([[[0, 1], [2, -1]]]))
    Segmentation(3, ignore_index=255).check_targets(torch.tensor([[[0, 1], [2, 255]]]))
    Segmentation(3).check_targets(torch.zeros(0, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize("wrong", [3, -2, 255])
def test_targets_out_of_range_are_refused_with_their_place(wrong):
    target = torch.zeros(130, 4, 5, dtype=torch.int64)
    target[129, 2, 3] = wrong
    message = rf"in 0\.\.2, or -1 where a pixel has no label, found {wrong} at sample 129, pixel \[2, 3\]"
    with pytest.raises(ValueError, match=message):
        Segmentation(3).check_targets(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.zeros(2, 3, 3), r"targets must be class indices of type int64, found torch\.float32"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), r"targets must be class indices of type int64, found torch\.uint8"),
        (torch.zeros(2, dtype=torch.int64), r"shape \[samples, height, width\], found \(2,\)"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.int64), r"shape \[samples, height, width\], found \(2, 1, 3, 3\)"),
    ],
)
def test_targets_that_cannot_be_labels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(3).check_targets(target)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="targets are maps of 3 x 4 pixels, and predictions of 4 x 3"):
        Segmentation(2).loss(torch.zeros(1, 2, 4, 3), torch.zeros(1, 3, 4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be >= 2, found 1"),
        ({"num_classes": 3, "label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), found 1\.0"),
        ({"num_classes": 3, "lr": 0.0}, r"lr must be > 0, found 0\.0"),
        ({"num_classes": 3, "weight": -1.0}, r"weight must be > 0, or size, found -1\.0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(**arguments)
