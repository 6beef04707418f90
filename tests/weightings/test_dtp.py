"""DTP: the weights are the focal loss of a running performance."""

import math

import pytest
import torch

from mtlrun.tasks import Classification, MeasuresPerformance, Regression
from mtlrun.weightings import DTP


def weights_of(weighting, performances, losses=(1.0, 1.0)):
    for performance in performances:
        weighting.observe_performance(torch.tensor(performance))
    leaf = torch.tensor(losses, requires_grad=True)
    weighting.objective(leaf).backward()
    return leaf.grad.tolist()


def test_weights_follow_the_formula():
    weighting = DTP(discount=0.25, gamma=2.0)
    weighting.setup(2)
    found = weights_of(weighting, [[0.8, 0.4], [0.4, 0.8]])
    means = [0.25 * 0.4 + 0.75 * 0.8, 0.25 * 0.8 + 0.75 * 0.4]
    assert found == pytest.approx([-((1 - mean) ** 2) * math.log(mean) for mean in means])


def test_a_task_that_does_worse_weighs_more_and_one_that_is_perfect_weighs_nothing():
    weighting = DTP()
    weighting.setup(3)
    worse, better, perfect = weights_of(weighting, [[0.3, 0.9, 1.0]], (1.0, 1.0, 1.0))
    assert worse > better > perfect == 0


def test_a_task_that_gets_nothing_right_has_the_weight_of_the_floor():
    weighting = DTP(gamma=0.0, floor=0.01)
    weighting.setup(2)
    assert weights_of(weighting, [[0.0, 0.5]])[0] == pytest.approx(-math.log(0.01))


def test_a_task_without_a_label_keeps_its_running_performance():
    weighting = DTP(discount=1.0, gamma=0.0)
    weighting.setup(3)
    weighting.observe_performance(torch.tensor([0.2, 0.4, 0.6]))
    weighting.active = torch.tensor([0, 2])
    weighting.observe_performance(torch.tensor([0.5, 0.5]))
    assert weighting.performance.tolist() == pytest.approx([0.5, 0.4, 0.5])


def test_the_performance_of_classification_is_accuracy_and_regression_has_none():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    assert Classification(2).performance(logits, torch.tensor([0, 1, 1, 1])).item() == 0.75
    assert not isinstance(Regression(), MeasuresPerformance)


@pytest.mark.parametrize(
    ("argument", "value"), [("discount", 0), ("discount", 1.5), ("gamma", -1), ("floor", 0), ("floor", 1)]
)
def test_bounds_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .* found {value}"):
        DTP(**{argument: value})
