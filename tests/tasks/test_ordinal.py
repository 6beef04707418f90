"""Ordinal regression, against scikit-learn and by hand."""

import math

import numpy
import pytest
import torch
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

from mtlrun.tasks import Ordinal

SIZES = [1, 50, 7, 32]
LOGIT = {p: math.log(p / (1 - p)) for p in (0.2, 0.4, 0.6, 0.8, 0.9)}


@pytest.fixture
def split():
    """Return logits and levels of 90 samples."""
    generator = torch.Generator().manual_seed(0)
    target = torch.multinomial(torch.tensor([0.4, 0.1, 0.3, 0.2]), 90, replacement=True, generator=generator)
    logits = torch.randn(90, 3, generator=generator) + 2 * (target[:, None] > torch.arange(3)) - 0.5
    return logits, target


def evaluate(task, logits, target, sizes=SIZES):
    meter = task.meter()
    for part, labels in zip(logits.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


@pytest.mark.parametrize("criterion", ["frank_hall", "corn"])
def test_values_are_those_of_scikit_learn_over_the_whole_split(split, criterion):
    logits, target = split
    task = Ordinal(4, criterion)
    found, chosen = evaluate(task, logits, target), task.levels(logits)
    assert found["mae"] == pytest.approx(mean_absolute_error(target, chosen))
    assert found["accuracy"] == pytest.approx(accuracy_score(target, chosen))
    assert found["kappa"] == pytest.approx(cohen_kappa_score(target, chosen, weights="quadratic"), rel=1e-5)
    assert found["loss"] == pytest.approx(task.loss(logits, target).item(), rel=1e-5)
    mae = numpy.abs(target.numpy() - chosen.numpy()).mean()
    assert task.performance(logits, target).item() == pytest.approx(1 - mae / 3)


def test_levels_by_hand():
    logits = torch.tensor([[LOGIT[0.8], LOGIT[0.6], LOGIT[0.4]], [LOGIT[0.2], LOGIT[0.9], LOGIT[0.9]]])
    assert Ordinal(4).levels(logits).tolist() == [2, 2]
    # Products: 0.8, 0.48, 0.192 and 0.2, 0.18, 0.162.
    assert Ordinal(4, "corn").levels(logits).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("criterion", "terms"),
    [
        # Level 1 of 0..3 is above 0 and not above 1, 2; level 0 is above none.
        ("frank_hall", [0.8, 1 - 0.6, 1 - 0.9, 1 - 0.2, 1 - 0.4, 1 - 0.8]),
        # Whether it is above 2 is asked of what is above 1 only.
        ("corn", [0.8, 1 - 0.6, 1 - 0.2]),
    ],
)
def test_loss_by_hand(criterion, terms):
    logits = torch.tensor([[LOGIT[0.8], LOGIT[0.6], LOGIT[0.9]], [LOGIT[0.2], LOGIT[0.4], LOGIT[0.8]]])
    task, target = Ordinal(4, criterion), torch.tensor([1, 0])
    assert task.loss(logits, target).item() == pytest.approx(-numpy.log(terms).mean(), rel=1e-5)
    assert task.num_terms(target) == len(terms)


def test_the_highest_level_counts_for_every_threshold():
    assert Ordinal(4, "corn").num_terms(torch.tensor([3])) == 3


@pytest.mark.parametrize("criterion", ["frank_hall", "corn"])
def test_levels_are_learned(criterion):
    x = torch.linspace(-2, 2, 80)[:, None]
    target = torch.bucketize(x.squeeze(1), torch.tensor([-1.0, 0.0, 1.0]))
    net, task = torch.nn.Linear(1, 3), Ordinal(4, criterion)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = task.loss(net(x), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert evaluate(task, net(x), target, [40, 40])["accuracy"] > 0.95


def test_kappa_is_nan_where_there_is_one_level_only():
    found = evaluate(Ordinal(3), torch.full((4, 2), -1.0), torch.zeros(4, dtype=torch.int64), [2, 2])
    assert math.isnan(found["kappa"])
    assert found["mae"] == 0


def test_output_directions_and_missing_labels():
    task = Ordinal(5)
    assert task.output_size == 4
    assert task.nonnegative_loss
    assert task.directions() == {"loss": "min", "mae": "min", "accuracy": "max", "kappa": "max"}
    assert task.main_metric == "mae"
    assert task.labeled(torch.tensor([0, -1, 4])).tolist() == [True, False, True]
    task.check_targets(torch.tensor([0, -1, 4]))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 2, 3]), r"targets must be in 0\.\.2, or -1 where a label is missing, found 3 at sample 2"),
        (torch.tensor([-2, 1]), "found -2 at sample 0"),
        (torch.zeros(2), r"levels of type int64, found torch\.float32"),
        (torch.zeros(2, 1, dtype=torch.int64), r"one number per sample, found shape \(2, 1\)"),
    ],
)
def test_targets_that_cannot_be_levels_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        Ordinal(3).check_targets(target)


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="num_levels must be >= 2, found 1"):
        Ordinal(1)
