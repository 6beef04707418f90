"""Metrics that are not defined on a split: each kind of task declares them from the labels alone."""

import math

import pytest
import torch
from sklearn.metrics import r2_score

from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    Count,
    Depth,
    Detection,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)
from mtlrun.tasks.metrics.errors import R2


def classes(count, *shape, missing=-1):
    """Return a function that draws class indices, some of them missing, of which often only one occurs."""

    def draw(generator, samples):
        allowed = torch.randint(0, count, (2,), generator=generator)
        labels = allowed[torch.randint(0, 2, (samples, *shape), generator=generator)]
        return torch.where(torch.rand(labels.shape, generator=generator) < 0.2, missing, labels)

    return draw


def numbers(*shape):
    def draw(generator, samples):
        values = classes(3, *shape)(generator, samples).double()
        return (torch.where(values < 0, math.nan, values) / 7).float()

    return draw


def directions(generator, samples):
    return torch.nn.functional.one_hot(torch.randint(0, 3, (samples, 2, 2), generator=generator), 3).movedim(3, 1) * 1.0


def boxes(generator, samples):
    """Return one object per image, or padding; some of them are to be ignored, some images have no label."""
    target = torch.tensor([2.0, 2.0, 20.0, 20.0, 0.0, 0.0]).repeat(samples, 1, 1)
    target[..., 4] = torch.where(torch.rand(samples, 1, generator=generator) < 0.5, -1.0, 0.0)
    target[..., 5] = (torch.rand(samples, 1, generator=generator) < 0.5).float()
    target[torch.rand(samples, generator=generator) < 0.2] = math.nan
    return target


KINDS = {
    "binary": (BinaryClassification(), classes(2), (1,)),
    "classification": (Classification(3), classes(3), (3,)),
    "multilabel": (MultiLabel(2), classes(2, 2), (2,)),
    "ordinal": (Ordinal(3), classes(3), (2,)),
    "corn": (Ordinal(3, criterion="corn"), classes(3), (2,)),
    "count": (Count(), classes(4), (1,)),
    "regression": (Regression(), numbers(), (1,)),
    "two numbers": (Regression(2), numbers(2), (2,)),
    "segmentation": (Segmentation(3), classes(3, 2, 2), (3, 2, 2)),
    "depth": (Depth(), numbers(2, 2), (1, 2, 2)),
    "normals": (SurfaceNormals(), directions, (3, 2, 2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_is_nan_if_and_only_if_that_was_declared(kind):
    task, draw, shape = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    declared, undeclared = set(), set()
    for trial in range(60):
        target = draw(generator, 1 + trial % 5)
        target = target[task.labeled(target)]
        if len(target) == 0:
            continue
        why = task.undefined_metrics(target)
        for scale in (1.0, 0.0):  # of arbitrary predictions, and of one that is the same for all samples
            meter = task.meter()
            for part in target.split(2):
                meter.update(scale * torch.randn(len(part), *shape, generator=generator), part)
            found = meter.compute()
            assert {metric for metric, value in found.items() if math.isnan(value)} == set(why), (target, why)
        declared |= set(why)
        undeclared |= set(found) - set(why)
    expected = {
        "binary": {"auroc", "average_precision", "f1", "mcc"}, "classification": {"mcc"},
        "multilabel": {"auroc", "map", "f1"}, "ordinal": {"kappa"}, "corn": {"kappa"}, "count": {"spearman"},
        "regression": {"r2", "spearman"}, "two numbers": {"r2"},
    }  # fmt: skip
    assert declared == expected.get(kind, set())
    assert undeclared == {"loss", *task.directions()}


def test_boxes_without_an_object_that_counts_have_no_precision():
    pytest.importorskip("pycocotools")
    task, generator = Detection(2), torch.Generator().manual_seed(0)
    declared = set()
    for trial in range(12):
        target = boxes(generator, 1 + trial % 3)
        target = target[task.labeled(target)]
        if len(target):
            precisions = task.metrics()
            for metric in precisions.values():
                found = torch.tensor([1.0, 1.0, 18.0, 18.0, 0.0, 0.0, 0.9]).repeat(len(target), 1, 1)
                metric.update(found, target)
            undefined = {name for name, metric in precisions.items() if math.isnan(metric.compute())}
            assert undefined == set(task.undefined_metrics(target))
            declared |= undefined
    assert declared == {"map50", "map"}


def test_the_reason_names_the_label_as_the_data_do():
    binary, target = BinaryClassification(), torch.zeros(18, dtype=torch.int64)
    assert binary.undefined_metrics(target)["auroc"] == "all 18 labels are 0"
    found = binary.undefined_metrics(1 - target[:1], ["no", "yes"])
    assert found == dict.fromkeys(["auroc", "mcc"], "the only label is 'yes'")
    found = Regression().undefined_metrics(torch.full((3,), 2.5))
    assert found == dict.fromkeys(["r2", "spearman"], "all 3 labels are 2.5")


def test_a_mean_over_fewer_labels_names_those_that_are_left_out():
    target = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0], [0, -1, 1, 0]])
    narrowed = MultiLabel(4).narrowed_metrics(target, ["cold", "wet", "warm", "dry"])
    assert narrowed == {"auroc": "cold, wet", "map": "cold"}
    assert MultiLabel(4).narrowed_metrics(target)["auroc"] == "0, 1"
    assert Regression(2).narrowed_metrics(torch.tensor([[1.0, 2.0], [3.0, 2.0]])) == {"r2": "number 1"}
    assert "auroc" not in MultiLabel(2).narrowed_metrics(target[:, :2])  # which is not defined at all


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 0.0), (1e-6, 1.0), (1.0, 1e8), (1e6, -1e3)])
def test_r2_has_no_unit(scale, offset):
    generator = torch.Generator().manual_seed(0)
    target = offset + scale * torch.randn(50, generator=generator, dtype=torch.float64)
    prediction = target + 0.3 * scale * torch.randn(50, generator=generator, dtype=torch.float64)
    metric = R2()
    for size in ((0, 20), (20, 21), (21, 50)):
        metric.update(prediction[slice(*size)], target[slice(*size)])
    assert float(metric.compute()) == pytest.approx(r2_score(target, prediction), abs=1e-6)
