"""Constant predictions of all kinds of tasks: their metrics are those of an independent computation."""

import math

import numpy
import pytest
import torch
from helpers import shipped_node
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier, DummyRegressor

from mtlrun.cli.list import entries
from mtlrun.config.instantiate import build
from mtlrun.config.schema import SIZE_KEYS
from mtlrun.datasets import Loader, TensorSplit
from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    ConstantPredictor,
    Count,
    Depth,
    Detection,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)
from mtlrun.training.constants import ConstantPredictions

NUMBERS = numpy.random.default_rng(0)
COUNT = 30


def constant_metrics(task, target, batch_size=7, memory=True):
    """Return the metrics of the constant prediction, the targets going through in batches."""
    samples = TensorSplit(torch.zeros(len(target), 1), {"task": target})
    split = samples if memory else [samples[index] for index in range(len(samples))]
    loader = Loader(split, batch_size, shuffle=False)
    constants = ConstantPredictions({"task": task})
    for targets in loader.target_batches():
        labeled = targets["task"][task.labeled(targets["task"])]
        if len(labeled):
            constants.add("task", labeled)
    return constants.metrics(loader, torch.device("cpu"))["task"]


def tensor(values, dtype=None):
    return torch.tensor(values) if dtype is None else torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("memory", [True, False])
def test_classification(memory):
    labels = NUMBERS.choice([0, 2, 2, 3, -1], COUNT)
    found = constant_metrics(Classification(4), tensor(labels), memory=memory)
    labels = labels[labels >= 0]
    dummy = DummyClassifier(strategy="prior").fit(labels, labels)
    assert found["accuracy"] == pytest.approx(dummy.score(labels, labels))
    # The class without a label gets a probability that is not 0, as if it had half a label.
    counts = numpy.array([max((labels == label).sum(), 0.5) for label in range(4)])
    assert found["loss"] == pytest.approx(-numpy.log(counts / counts.sum())[labels].mean())


def test_binary_classification():
    labels = NUMBERS.choice([0, 1, 1, -1], COUNT)
    found = constant_metrics(BinaryClassification(), tensor(labels, torch.float32))
    labels = labels[labels >= 0]
    assert found == pytest.approx(
        {
            "loss": reference.log_loss(labels, numpy.full(len(labels), labels.mean())),
            "auroc": 0.5,
            "average_precision": labels.mean(),
            "accuracy": max(labels.mean(), 1 - labels.mean()),
            "f1": reference.f1_score(labels, numpy.full(len(labels), labels.mean() > 0.5)),
            "balanced_accuracy": 0.5,
            "mcc": 0,
            "log_loss": reference.log_loss(labels, numpy.full(len(labels), labels.mean())),
            "ece": pytest.approx(0, abs=1e-7),  # frequencies are well calibrated
        }
    )


def test_multilabel_has_a_constant_for_each_label():
    labels = NUMBERS.choice([0, 0, 1, -1], (COUNT, 3))
    found = constant_metrics(MultiLabel(3), tensor(labels))
    rates = [column[column >= 0].mean() for column in labels.T]
    assert found["auroc"] == 0.5
    assert found["map"] == pytest.approx(numpy.mean(rates))
    losses = -numpy.log(numpy.where(labels == 1, rates, 1 - numpy.array(rates)))
    assert found["loss"] == pytest.approx(losses[labels >= 0].mean())


@pytest.mark.parametrize("criterion", ["frank_hall", "corn"])
def test_ordinal_has_the_median_level_and_the_best_constant_loss(criterion):
    task, levels = Ordinal(5, criterion), tensor(NUMBERS.choice([0, 1, 1, 2, 3, 3, 4, -1], COUNT + 1))
    found = constant_metrics(task, levels)
    levels = levels[levels >= 0]
    assert found["mae"] == pytest.approx((levels - levels.median()).abs().float().mean())
    assert found["kappa"] == pytest.approx(0, abs=1e-6)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = task.loss(logits.expand(len(levels), -1), levels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert found["loss"] == pytest.approx(closure().item(), rel=1e-4)


def test_regression_has_the_mean_of_each_number():
    numbers = NUMBERS.normal(3, 2, (COUNT, 2))
    numbers[4, 1] = math.nan
    found = constant_metrics(Regression(2), tensor(numbers, torch.float32))
    numbers = numbers[~numpy.isnan(numbers).any(axis=1)]
    dummy = DummyRegressor().fit(numbers, numbers)
    predicted = numpy.stack([dummy.constant_[0]] * len(numbers))
    assert found["rmse"] == pytest.approx(math.sqrt(((numbers - predicted) ** 2).mean()), rel=1e-5)
    assert constant_metrics(Regression(), tensor(numbers[:, 0], torch.float32))["r2"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("counts", [[0, 3, 1, 8, -1], [0, 0, 0]])
def test_count_has_the_mean_count(counts):
    found = constant_metrics(Count(), tensor(counts))
    counts = numpy.array([count for count in counts if count >= 0])
    mean = max(counts.mean(), 0.5 / len(counts))
    assert found["mae"] == pytest.approx(abs(counts - mean).mean())
    assert math.isfinite(found["loss"])


@pytest.mark.parametrize("shape", [(COUNT, 3, 4), (COUNT, 1, 3, 4)])
def test_depth_has_the_mean_of_the_labeled_pixels(shape):
    depths = NUMBERS.uniform(0.5, 3, shape).astype("float32")
    depths[:2], depths[3, ..., 1], depths[4, ..., 2] = 0, math.nan, 0
    found = constant_metrics(Depth(), tensor(depths))
    depths = depths[depths > 0].astype("float64")
    errors = abs(depths - depths.mean())
    assert found == pytest.approx(
        {"loss": errors.mean(), "abs_err": errors.mean(), "rel_err": (errors / depths).mean()}, rel=1e-5
    )


def test_normals_have_the_mean_direction():
    normals = NUMBERS.normal([0, 0, 2], 1, (COUNT, 2, 5, 3))
    normals /= numpy.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0, 0] = 0
    found = constant_metrics(SurfaceNormals(), tensor(normals, torch.float32).movedim(-1, 1))
    normals = normals[numpy.linalg.norm(normals, axis=-1) > 0]
    mean = normals.mean(axis=0) / numpy.linalg.norm(normals.mean(axis=0))
    angles = numpy.degrees(numpy.arccos((normals @ mean).clip(-1, 1)))
    assert found["mean_angle"] == pytest.approx(angles.mean(), rel=1e-4)
    assert found["within_30"] == pytest.approx((angles < 30).mean(), abs=1e-6)


def test_segmentation_has_the_class_frequencies():
    classes = NUMBERS.choice([0, 1, 1, 2, 255], (COUNT, 3, 4))
    found = constant_metrics(Segmentation(3, ignore_index=255), tensor(classes))
    classes = classes[classes != 255]
    frequencies = numpy.bincount(classes) / len(classes)
    assert found["pixel_accuracy"] == pytest.approx(frequencies.max())
    assert found["miou"] == pytest.approx(frequencies.max() / 3)
    assert found["loss"] == pytest.approx(-numpy.log(frequencies)[classes].mean(), rel=1e-5)


def test_detection_has_no_boxes():
    task = Detection(2)
    assert constant_metrics(task, torch.zeros(3, 1, 6)) == {"map50": 0.0, "map": 0.0}


def test_without_any_label_nothing_is_known():
    assert constant_metrics(Regression(), torch.full((4,), math.nan)) == {}


def test_every_kind_that_ships_has_a_value_to_start_from():
    for entry in entries("task"):
        node = shipped_node("task", entry.name)
        node |= {key: 2 for key in SIZE_KEYS if key in node}
        if entry.name == "objective":
            continue  # a function has no targets
        task = build({**node, "lr": 1e-3}, "tasks.task")
        assert isinstance(task, ConstantPredictor) or task.main_metric in task.trivial_values, entry.name
