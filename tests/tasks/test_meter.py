"""What all tasks have in common: bounds, directions, and meters that pool over a split."""

import math
from functools import partial

import pytest
import torch
from torchmetrics import Metric

from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.config.schema import SIZE_KEYS
from mtlrun.tasks import BinaryClassification, Classification, Count, Regression, Task

TASKS = {"classification": partial(Classification, 3), "regression": Regression}


@pytest.fixture(params=TASKS)
def make(request):
    return TASKS[request.param]


def samples(task, count, seed):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(count, task.output_size, generator=generator)
    if isinstance(task, Classification):
        return prediction, torch.randint(3, (count,), generator=generator)
    return prediction, torch.randn(count, generator=generator) * 3 + 1


def test_directions_cover_the_loss_and_every_metric(make):
    task = make()
    meter = task.meter()
    meter.update(*samples(task, 5, 0))
    assert meter.compute().keys() == task.directions().keys()
    assert task.directions()["loss"] == "min"
    assert task.main_metric in task.metrics()


@pytest.mark.parametrize("kind", [entry.name for entry in entries("task")])
def test_declared_directions_are_those_of_the_metrics_in_the_same_order(kind):
    node = compose([f"+task@tasks.extra={kind}"])["tasks"]["extra"]
    task = build(node | {key: 2 for key in SIZE_KEYS if key in node}, "tasks.extra")
    by_metrics = [(name, "max" if metric.higher_is_better else "min") for name, metric in task.metrics().items()]
    assert list(task.directions().items()) == [("loss", "min"), *by_metrics]


def test_values_over_unequal_batches_are_those_over_the_whole_split(make):
    task = make()
    prediction, target = samples(task, 24, 1)
    pooled, whole = task.meter(), task.meter()
    for part, labels in zip(prediction.split([1, 16, 5, 2]), target.split([1, 16, 5, 2]), strict=True):
        pooled.update(part, labels)
    whole.update(prediction, target)
    assert pooled.compute() == pytest.approx(whole.compute(), rel=1e-5)
    assert whole.compute()["loss"] == pytest.approx(task.loss(prediction, target).item(), rel=1e-6)


@pytest.mark.parametrize("kind", [BinaryClassification, partial(Classification, 3), Regression, Count])
def test_metrics_of_one_state_are_updated_once_and_have_the_values_of_each_alone(kind, monkeypatch):
    task, updates = kind(), []
    target = torch.randint(2, (24,), generator=torch.Generator().manual_seed(0))
    prediction = torch.randn(24, task.output_size, generator=torch.Generator().manual_seed(1))
    target = target.float() if isinstance(task, Regression) else target
    alone = {}
    for name, metric in task.metrics().items():
        for part, labels in zip(prediction.split(9), target.split(9), strict=True):
            metric.update(*task.metric_inputs(part, labels))
        alone[name] = float(metric.compute())
    families = {getattr(metric, "family", type(metric)) for metric in task.metrics().values()}
    for family in families:
        update = family.update
        monkeypatch.setattr(family, "update", lambda *a, update=update: (updates.append(0), update(*a))[1])
    meter = task.meter()
    for part, labels in zip(prediction.split(9), target.split(9), strict=True):
        meter.update(part, labels)
    found = meter.compute()
    assert {name: found[name] for name in alone} == pytest.approx(alone, rel=1e-12)
    assert len(updates) == 3 * len(families) < 3 * len(alone)


def test_empty_batches_change_nothing(make):
    task = make()
    prediction, target = samples(task, 6, 1)
    meter, other = task.meter(), task.meter()
    meter.update(prediction, target)
    other.update(prediction[:0], target[:0])
    other.update(prediction, target)
    assert other.compute() == meter.compute()


def test_without_any_label_all_values_are_nan(make):
    task = make()
    values = task.meter().compute()
    assert values.keys() == task.directions().keys()
    assert all(math.isnan(value) for value in values.values())


def test_a_single_sample_can_be_evaluated(make):
    task = make()
    prediction, target = samples(task, 1, 0)
    meter = task.meter()
    meter.update(prediction, target)
    assert meter.compute()["loss"] == pytest.approx(task.loss(prediction, target).item())


def test_meters_are_independent_of_each_other(make):
    task = make()
    first, second = task.meter(), task.meter()
    first.update(*samples(task, 5, 0))
    second.update(*samples(task, 9, 1))
    alone = task.meter()
    alone.update(*samples(task, 9, 1))
    assert second.compute() == alone.compute()


def test_meter_keeps_no_graph(make):
    task = make()
    prediction, target = samples(task, 5, 0)
    meter = task.meter()
    meter.update(prediction.requires_grad_(), target)
    assert all(isinstance(value, float) for value in meter.compute().values())


def test_task_without_metrics_has_its_loss():
    class Bare(Task):
        output_size = 1

        def labeled(self, target):
            return torch.ones(len(target), dtype=torch.bool)

        def loss(self, prediction, target):
            return (prediction - target).abs().mean()

        def metrics(self) -> dict[str, Metric]:
            return {}

    meter = Bare().meter()
    meter.update(torch.tensor([1.0, 2, 3]), torch.zeros(3))
    meter.update(torch.tensor([6.0]), torch.zeros(1))
    assert meter.compute() == {"loss": 3.0}


@pytest.mark.parametrize("argument", ["lr", "weight"])
@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan])
def test_learning_rate_and_weight_must_be_positive(make, argument, wrong):
    with pytest.raises(ValueError, match=f"{argument} must be > 0,( or size,)? found {wrong}"):
        make(**{argument: wrong})
