"""Parameter groups: learning rates, weight decay, and that each parameter is in exactly one."""

import pytest
import torch
from torch import nn

from mtlrun.errors import ConfigError
from mtlrun.setup.optimizer_groups import Group, check_partition, make_param_groups


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
