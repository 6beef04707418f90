"""Metrics of resamples: those of a meter on repeated samples, for every kind that has formulas."""

import math

import numpy
import pytest
import torch

from mtlrun.tasks import BinaryClassification, Classification, Count, MultiLabel, Ordinal, Regression
from mtlrun.tasks.losses.sample_weights import sample_losses
from mtlrun.tasks.resampling.means import mean_loss

SIZE, RESAMPLES = 40, 12


def ties(*shape):
    """Return scores with many equal ones."""
    return torch.randn(*shape).mul(2).round() / 2


def numbers(*shape, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(*shape, dtype=torch.float64)


def chosen(values, *shape):
    return torch.tensor(values)[torch.randint(len(values), shape)]


def standardized(task, target):
    task.fit([target])
    return task


CASES = {
    "binary": lambda: (BinaryClassification(label_smoothing=0.1, class_weights=[1, 3]), ties(SIZE, 1),
                       chosen([0.0, 0.0, 1.0], SIZE)),
    "binary, different scores": lambda: (BinaryClassification(), torch.randn(SIZE, 1), chosen([0, 1], SIZE)),
    "binary, rare": lambda: (BinaryClassification(criterion="focal"), ties(SIZE, 1),
                             torch.arange(SIZE).eq(3).long()),
    "classification": lambda: (Classification(5, class_weights=[1, 2, 3, 4, 5]), torch.randn(SIZE, 5),
                               chosen([0, 1, 1, 4], SIZE)),
    "classification, a class for each sample": lambda: (Classification(SIZE), torch.randn(SIZE, SIZE),
                                                        torch.arange(SIZE)),
    "ordinal": lambda: (Ordinal(4), torch.randn(SIZE, 3), chosen([0, 1, 3], SIZE)),
    "ordinal, corn": lambda: (Ordinal(3, "corn"), torch.randn(SIZE, 2), chosen([0, 1, 2], SIZE)),
    "multilabel": lambda: (MultiLabel(3, class_weights=[1, 2, 5]), ties(SIZE, 3),
                           torch.cat([chosen([0, 1], SIZE, 1), chosen([-1, 0, 1], SIZE, 2)], dim=1)),
    "multilabel, one is always no": lambda: (MultiLabel(2), ties(SIZE, 2),
                                             chosen([0, 1], SIZE, 2) * torch.tensor([1, 0])),
    "count": lambda: (standardized(Count(standardize=True), torch.tensor([3.0, 9.0])), torch.randn(SIZE, 1),
                      chosen([0.0, 2.0, 30.0], SIZE)),
    "regression": lambda: (standardized(Regression(standardize=True), numbers(9, scale=5.0, shift=1e6)),
                           torch.randn(SIZE, 1), numbers(SIZE, scale=5.0, shift=1e6)),
    "regression, two numbers": lambda: (Regression(2, "huber"), torch.randn(SIZE, 2), torch.randn(SIZE, 2)),
    "regression, few different targets": lambda: (Regression(), torch.randn(SIZE, 1),
                                                  torch.arange(SIZE).lt(2).float() + 0.1),
}  # fmt: skip


def by_meter(task, prediction, target, counts):
    rows = torch.arange(len(target)).repeat_interleave(torch.from_numpy(counts.astype(int)))
    meter = task.meter()
    meter.update(prediction[rows], target[rows])
    return meter.compute()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_formulas_give_what_a_meter_gives_on_repeated_samples(case):
    task, prediction, target = CASES[case]()
    losses, terms = sample_losses(task, prediction, target)
    loss, formulas = mean_loss(losses.double() * terms, terms), task.resampled_metrics(prediction, target)
    generator = numpy.random.default_rng(0)
    counts = generator.multinomial(SIZE, numpy.full(SIZE, 1 / SIZE), size=RESAMPLES).astype(float)
    counts = numpy.concatenate([numpy.ones((1, SIZE)), 3 * numpy.ones((1, SIZE)), counts])
    found = loss(counts) | formulas(counts)
    assert found.keys() == task.directions().keys()
    for index, each in enumerate(counts):
        expected = by_meter(task, prediction, target, each)
        for metric, value in expected.items():
            same = found[metric][index]
            assert (math.isnan(value) and math.isnan(same)) or same == pytest.approx(value, rel=2e-5, abs=2e-6), metric


def test_a_resample_of_one_class_has_no_ranking_and_one_without_yes_no_f1():
    task = BinaryClassification()
    formulas = task.resampled_metrics(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
    found = formulas(numpy.array([[2.0, 0.0], [0.0, 2.0]]))
    assert numpy.isnan(found["auroc"]).all()
    assert numpy.isnan(found["average_precision"]).tolist() == [False, True]
    assert numpy.isnan(found["f1"]).tolist() == [False, True]
