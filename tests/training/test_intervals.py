"""Intervals of metrics: those of SciPy's bootstrap, by samples or by groups, for formulas and for meters."""

import numpy
import pytest
import torch
from scipy import stats
from torchmetrics import MeanAbsoluteError, Metric

from mtlrun.datasets import Loader, TensorSplit
from mtlrun.tasks import BinaryClassification, Classification, Ordinal, Regression, Task
from mtlrun.training.batch import SourceBatch
from mtlrun.training.intervals import find_intervals, num_resamples, wilson_interval
from mtlrun.training.outputs import SplitOutputs

CPU = torch.device("cpu")


def outputs_of(tasks, predictions, targets):
    """Return outputs as an evaluation gathers them, in batches of 64, and the metrics."""
    split = TensorSplit(torch.zeros(len(next(iter(targets.values()))), 1), targets)
    loader = Loader(split, 64, shuffle=False)
    outputs = SplitOutputs(tasks, loader)
    meters = {name: task.meter() for name, task in tasks.items()}
    for loaded, (indices,) in zip(loader.batches(), loader.positions(), strict=True):
        samples = SourceBatch.load(tasks, loaded, CPU, None)
        found = {name: prediction[indices] for name, prediction in predictions.items()}
        outputs.add(indices, samples, found)
        for name in samples.active:
            meters[name].update(samples.pick(name, found[name]), samples.targets[name])
    return outputs, {name: meter.compute() for name, meter in meters.items()}


def intervals_of(task, prediction, target, groups=None):
    return find_intervals(*outputs_of({"task": task}, {"task": prediction}, {"task": target}), CPU, groups)


def test_they_are_those_of_scipy_over_the_labeled_samples():
    target = torch.randn(200)
    prediction = (target + 0.5 * torch.randn(200))[:, None]
    target[::5] = torch.nan
    found = intervals_of(Regression(), prediction, target).bounds["task"]
    labeled = ~target.isnan()
    pair = prediction[labeled, 0].double().numpy(), target[labeled].double().numpy()

    def r2(guess, truth):
        return 1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()

    for metric, function in {"mae": lambda guess, truth: abs(guess - truth).mean(), "r2": r2}.items():
        expected = stats.bootstrap(
            pair, function, paired=True, vectorized=False, n_resamples=1000, method="percentile", rng=1
        ).confidence_interval
        width = expected.high - expected.low
        assert found[metric] == pytest.approx([expected.low, expected.high], abs=0.12 * width)


def test_nineteen_of_twenty_cover_the_true_accuracy():
    hits = torch.rand(200, 100) < 0.7
    covered = 0
    for row in hits:
        prediction = torch.stack([~row, row], dim=1).float()
        low, high = intervals_of(Classification(2), prediction, torch.ones(100).long()).bounds["task"]["accuracy"]
        covered += low <= 0.7 <= high
    assert 0.9 < covered / 200 < 0.98


def test_whole_groups_are_drawn():
    groups = torch.arange(30).repeat_interleave(10)
    right = (torch.rand(30) < 0.6).repeat_interleave(10)  # all samples of a group are right, or none
    prediction = torch.stack([~right, right], dim=1).float()
    target = torch.ones(300).long()
    alone = intervals_of(Classification(2), prediction, target).bounds["task"]["accuracy"]
    together = intervals_of(Classification(2), prediction, target, groups)
    low, high = together.bounds["task"]["accuracy"]
    assert together.units == {"task": 30}
    assert (high - low) / (alone[1] - alone[0]) == pytest.approx(10**0.5, rel=0.2)
    of_means = intervals_of(Classification(2), prediction[::10], target[::10]).bounds["task"]["accuracy"]
    assert [low, high] == pytest.approx(of_means)


def test_samples_without_a_label_change_nothing():
    prediction, target = torch.randn(50, 3), torch.randint(3, (50,))
    padded = torch.full((90,), -1)
    places = torch.randperm(90)[:50].sort().values
    padded[places] = target
    all_predictions = torch.randn(90, 3)
    all_predictions[places] = prediction
    groups = torch.randint(7, (90,))
    for all_groups, some in ((None, None), (groups, groups[places])):
        expected = intervals_of(Classification(3), prediction, target, some)
        assert intervals_of(Classification(3), all_predictions, padded, all_groups) == expected


def test_the_seed_is_fixed_and_tasks_do_not_change_each_other():
    target = torch.randint(2, (80,))
    tasks = {"first": BinaryClassification(), "second": Classification(2)}
    predictions = {"first": torch.randn(80, 1), "second": torch.randn(80, 2)}
    targets = dict.fromkeys(tasks, target)
    both = find_intervals(*outputs_of(tasks, predictions, targets), CPU)
    assert both == find_intervals(*outputs_of(tasks, predictions, targets), CPU)
    assert intervals_of(tasks["first"], predictions["first"], target).bounds["task"] == both.bounds["first"]


def test_undefined_resamples_are_left_out_and_counted():
    target = torch.zeros(30).long()
    target[3] = 1
    found = intervals_of(BinaryClassification(), torch.randn(30, 1), target)
    assert found.undefined["task"]["auroc"] == pytest.approx((1 - 1 / 30) ** 30, abs=0.05)
    assert numpy.isfinite(found.bounds["task"]["auroc"]).all()


def test_what_all_resamples_agree_on_has_no_interval():
    target = torch.randint(2, (30,))
    found = intervals_of(BinaryClassification(), 9.0 * (2 * target - 1)[:, None], target)
    assert found.bounds["task"].keys() <= {"loss", "log_loss", "ece", "accuracy"}
    assert intervals_of(Regression(), torch.ones(1, 1), torch.zeros(1)).bounds == {}
    found = intervals_of(Ordinal(3), torch.tensor([[9.0, -9.0]]).expand(30, 2), torch.arange(30) % 3)  # always 1
    assert "kappa" not in found.bounds["task"]  # it is 0, up to rounding


@pytest.mark.parametrize("right", [True, False])
def test_an_accuracy_of_all_or_nothing_has_the_interval_of_wilson(right):
    target = torch.randint(2, (60,))
    prediction = (9.0 if right else -9.0) * (2 * target - 1)[:, None]
    expected = stats.binomtest(60 if right else 0, 60).proportion_ci(method="wilson")
    found = intervals_of(BinaryClassification(), prediction, target)
    assert found.bounds["task"]["accuracy"] == pytest.approx([expected.low, expected.high])
    assert found.by_wilson == {"task": ["accuracy"]}
    # Whole groups are the trials, so that copies of samples make nothing more certain.
    copied = intervals_of(BinaryClassification(), prediction.repeat(5, 1), target.repeat(5), torch.arange(60).repeat(5))
    assert copied.bounds["task"]["accuracy"] == pytest.approx([expected.low, expected.high])
    mixed = intervals_of(BinaryClassification(), torch.cat([prediction[:30], -prediction[30:]]), target)
    assert mixed.by_wilson == {}


def test_the_interval_of_wilson_is_that_of_scipy():
    for right, trials in [(0, 1), (3, 7), (50, 51), (1000, 1000)]:
        expected = stats.binomtest(right, trials).proportion_ci(method="wilson")
        assert wilson_interval(right / trials, trials) == pytest.approx([expected.low, expected.high])


class Bare(Task):
    """A kind without formulas."""

    output_size = 1
    main_metric = "distance"

    def labeled(self, target):
        return ~target.isnan()

    def loss(self, prediction, target):
        return (prediction[:, 0] - target).abs().mean()

    def metrics(self) -> dict[str, Metric]:
        return {"distance": MeanAbsoluteError()}

    def metric_inputs(self, prediction, target):
        return prediction[:, 0], target


class ClassError(MeanAbsoluteError):
    """Mean distance of the predicted class."""

    def update(self, prediction, target):
        super().update(prediction.argmax(dim=1), target)


class Lenient(Classification):
    """A kind that redefines a metric and inherits another's formula."""

    def metrics(self):
        return {**super().metrics(), "accuracy": ClassError()}


def test_metrics_without_a_formula_are_computed_by_the_meter_of_few_samples():
    prediction, target = torch.randn(60, 1), torch.randn(60)
    found, plain = (intervals_of(task, prediction, target).bounds["task"] for task in (Bare(), Regression()))
    assert found["distance"] == pytest.approx(plain["mae"], abs=0.1)
    many = intervals_of(Bare(), torch.randn(3000, 1), torch.randn(3000)).bounds["task"]
    assert many.keys() == {"loss"}


def test_a_redefined_metric_does_not_get_the_interval_of_the_formula_that_it_inherits():
    prediction, target = torch.randn(60, 4), torch.randint(4, (60,))
    found, plain = (intervals_of(task, prediction, target).bounds["task"] for task in (Lenient(4), Classification(4)))
    error = (prediction.argmax(dim=1) - target).abs().float().mean()
    assert found["accuracy"][0] < error < found["accuracy"][1]
    assert found["f1"] == plain["f1"]


def test_large_splits_have_fewer_resamples():
    assert [num_resamples(count) for count in (1, 10_000, 20_000, 10**6)] == [1000, 1000, 500, 200]
