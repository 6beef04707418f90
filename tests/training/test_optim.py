"""Schedules at points worked out by hand, and parameter groups."""

from math import cos, pi, sqrt

import pytest
import torch
from torch import nn

from mtlrun.errors import ConfigError
from mtlrun.training.optim import (
    Constant,
    Cosine,
    Exponential,
    Group,
    Step,
    check_partition,
    make_param_groups,
    set_learning_rates,
)


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


def test_learning_rates_are_each_groups_own_times_the_factor():
    groups = [
        Group("shared", [nn.Parameter(torch.ones(1))], lr=0.1),
        Group("left", [nn.Parameter(torch.ones(1))], lr=0.4),
    ]
    optimizer = torch.optim.SGD(make_param_groups(groups), lr=9.0)
    for factor in (0.5, 0.25):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * factor, 0.4 * factor])


def test_groups_keep_name_parameters_and_base_learning_rate_and_empty_ones_are_left_out():
    parameter = nn.Parameter(torch.ones(1))
    found = make_param_groups([Group("shared", [parameter], lr=0.1), Group("left", [], lr=0.4)])
    assert found == [{"params": [parameter], "lr": 0.1, "initial_lr": 0.1, "name": "shared"}]


def test_weight_decay_can_be_switched_off_for_a_group():
    decayed, kept = (nn.Parameter(torch.ones(1)) for _ in range(2))
    groups = make_param_groups([Group("shared", [decayed], 0.1), Group("weighting", [kept], 0.1, weight_decay=False)])
    optimizer = torch.optim.SGD(groups, weight_decay=0.5)
    decayed.grad = kept.grad = torch.zeros(1)
    optimizer.step()
    assert decayed.item() == pytest.approx(0.95)
    assert kept.item() == 1


def test_partition_that_holds_each_trainable_parameter_once_is_accepted():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].bias.requires_grad_(False)
    check_partition(module, [Group("a", [module[0].weight], 1), Group("b", list(module[1].parameters()), 1)])


@pytest.mark.parametrize(("times", "name"), [(0, "1.bias"), (2, "0.weight")])
def test_partition_that_misses_or_repeats_a_parameter_is_refused(times, name):
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    parameters = dict(module.named_parameters())
    listed = [p for other, p in parameters.items() if other != name] + [parameters[name]] * times
    message = rf"parameter {name} must be in exactly one of the model's parameter groups, found it in {times}"
    with pytest.raises(ConfigError, match=message):
        check_partition(module, [Group("all", listed, 1)])
