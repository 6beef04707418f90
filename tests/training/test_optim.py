"""Learning-rate schedules, at points computed by hand."""

from math import cos, pi, sqrt

import pytest
import torch
from torch import nn

from mtlrun.setup.optimizer_groups import Group, make_param_groups
from mtlrun.training.optim import Constant, Cosine, Exponential, Step, set_learning_rates


def factors(schedule, steps, steps_per_epoch=10, total_steps=100):
    return [schedule.factor(step, steps_per_epoch, total_steps) for step in steps]


def test_constant_stays_at_one():
    assert factors(Constant(), [0, 37, 99]) == [1, 1, 1]


def test_warm_up_rises_linearly_and_ends_at_one():
    assert factors(Constant(warmup_epochs=0.5), [0, 1, 2, 3, 4, 5]) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_warm_up_is_rounded_to_whole_steps():
    assert factors(Constant(warmup_epochs=0.26), [0, 1, 2, 3]) == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert factors(Constant(warmup_epochs=0.04), [0]) == [1]


def test_cosine_starts_at_one_and_ends_at_its_final_value():
    assert factors(Cosine(final_factor=0.1), [0, 50, 100]) == pytest.approx([1.0, 0.55, 0.1])
    assert factors(Cosine(), [25, 99, 100, 120]) == pytest.approx(
        [0.5 + sqrt(2) / 4, 0.5 * (1 + cos(0.99 * pi)), 0.0, 0.0]
    )


def test_cosine_spans_what_is_left_after_the_warm_up():
    schedule = Cosine(warmup_epochs=2)
    assert factors(schedule, [0, 19, 20, 60, 100]) == pytest.approx([0.05, 1.0, 1.0, 0.5, 0.0])


def test_step_multiplies_every_so_many_epochs():
    schedule = Step(step_size=3, gamma=0.1)
    assert factors(schedule, [0, 29, 30, 59, 60, 99]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_step_counts_epochs_from_the_end_of_the_warm_up():
    assert factors(Step(step_size=1, gamma=0.5, warmup_epochs=1), [9, 10, 19, 20]) == pytest.approx([1, 1, 1, 0.5])


def test_exponential_multiplies_after_each_epoch():
    assert factors(Exponential(gamma=0.9), [0, 9, 10, 19, 20, 99]) == pytest.approx([1, 1, 0.9, 0.9, 0.81, 0.9**9])


def test_warm_up_as_long_as_the_training_is_possible():
    assert factors(Cosine(warmup_epochs=10), [0, 99]) == pytest.approx([0.01, 1.0])
    assert factors(Cosine(warmup_epochs=10), [100]) == [1]


@pytest.mark.parametrize(
    ("cls", "argument", "wrong", "bounds"),
    [
        (Constant, "warmup_epochs", -1.0, ">= 0"),
        (Cosine, "warmup_epochs", -1.0, ">= 0"),
        (Cosine, "final_factor", 1.5, r"in \[0, 1\]"),
        (Cosine, "final_factor", -0.5, r"in \[0, 1\]"),
        (Step, "step_size", 0, ">= 1"),
        (Step, "gamma", 0.0, r"in \(0, 1\]"),
        (Step, "gamma", 1.5, r"in \(0, 1\]"),
        (Exponential, "gamma", 0.0, r"in \(0, 1\]"),
        (Exponential, "gamma", 1.5, r"in \(0, 1\]"),
    ],
)
def test_arguments_out_of_bounds_are_refused(cls, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        cls(**{argument: wrong})


def test_learning_rates_are_those_of_the_groups_times_the_factor():
    groups = [
        Group("shared", [nn.Parameter(torch.ones(1))], lr=0.1),
        Group("left", [nn.Parameter(torch.ones(1))], lr=0.4),
    ]
    optimizer = torch.optim.SGD(make_param_groups(groups), lr=9.0)
    for factor in (0.5, 0.25):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * factor, 0.4 * factor])
