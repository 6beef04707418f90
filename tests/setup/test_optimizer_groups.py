"""Parameter groups: learning rates, weight decay, and that each parameter is in exactly one."""

from functools import partial

import pytest
import torch
from helpers import CONF, run_folders, shipped_node
from torch import nn

from mtlrun.config.instantiate import build
from mtlrun.errors import ConfigError
from mtlrun.models.backbones import MLP
from mtlrun.setup import optimizer_groups
from mtlrun.setup.optimizer_groups import (
    Group,
    check_partition,
    check_room_for_training,
    check_task_rates,
    make_optimizer,
    make_param_groups,
)
from mtlrun.tasks import Classification


def test_groups_keep_name_parameters_and_base_learning_rate_and_empty_ones_are_left_out():
    parameter = nn.Parameter(torch.ones(1))
    found = make_param_groups([Group("shared", [parameter], lr=0.1), Group("left", [], lr=0.4)])
    assert found == [{"params": [parameter], "lr": 0.1, "initial_lr": 0.1, "name": "shared"}]


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


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((path.stem, {}) for path in sorted(CONF.glob("model/*.yaml"))), ("cascade", {"stop_gradient": False})],
)
def test_every_model_trains_the_head_of_each_task_at_the_rate_of_the_task(name, changes):
    tasks = {"a": Classification(17, lr=0.2), "b": Classification(19, lr=0.3), "c": Classification(23, lr=0.5)}
    node = {"_target_": "torch.optim.SGD", "lr": 0.1}
    backbone = partial(MLP, (4,), hidden=[6, 6])
    model = build(shipped_node("model", name) | changes, "model", tasks=tasks, backbone=backbone)
    check_task_rates(node, model, tasks)
    entries = make_optimizer(node, model, tasks).param_groups
    for task in tasks.values():  # known by the size of the output: the bias of the last layer of a head
        rates = [entry["lr"] for entry in entries for p in entry["params"] if p.shape == (task.output_size,)]
        assert set(rates) == {task.lr}


@pytest.mark.parametrize(("name", "group", "adaptive"), [("cross_stitch", "stitch", 10), ("nddr", "nddr_a", 1)])
@pytest.mark.parametrize(
    ("target", "sgd"), [("torch.optim.SGD", True), ("torch.optim.AdamW", False), ("torch.optim.RMSprop", False)]
)
def test_the_units_rate_follows_the_optimizer_unless_it_is_a_number(name, group, adaptive, target, sgd):
    tasks = {"a": Classification(2, lr=0.1), "b": Classification(3, lr=0.1)}
    node = {"_target_": target, "lr": 0.1}
    for scale, expected in (("auto", 100 if sgd else adaptive), (7.0, 7)):
        backbone, changes = partial(MLP, (4,), hidden=[6, 6]), {"unit_lr_scale": scale}
        model = build(shipped_node("model", name) | changes, "model", tasks=tasks, backbone=backbone)
        entries = {entry["name"]: entry for entry in make_optimizer(node, model, tasks).param_groups}
        assert entries[group]["lr"] == entries[group]["initial_lr"] == pytest.approx(0.1 * expected)
        assert entries["shared"]["lr"] == entries["a"]["lr"] == 0.1


def test_under_adam_the_initial_mixtures_outlive_the_first_step():
    tasks = {"a": Classification(2), "b": Classification(3)}
    backbone = partial(MLP, (4,), hidden=[6, 6])
    model = build(shipped_node("model", "cross_stitch"), "model", tasks=tasks, backbone=backbone)
    optimizer = make_optimizer({"_target_": "torch.optim.Adam", "lr": 1e-3}, model, tasks)
    predictions = model(torch.randn(8, 4)).predictions
    sum(prediction.square().sum() for prediction in predictions.values()).backward()
    before = [unit.alpha.clone() for unit in model.units]
    optimizer.step()
    for unit, alpha in zip(model.units, before, strict=True):
        assert 0 < (unit.alpha - alpha).abs().max() < 0.02  # of .9 and .1


def test_a_rate_that_no_parameter_would_train_at_is_refused(mtlrun):
    code, _, err = mtlrun("dataset=toy2d", "tasks.first.lr=0.01", "trainer=smoke")
    assert code == 2
    assert "tasks.first.lr must be that of the shared parameters, optimizer.lr=0.001, found 0.01" in err
    assert "no parameter of HardSharing would train at it" in err
    assert "tasks.second" not in err
    assert not run_folders()
    code, _, err = mtlrun("dataset=toy2d", "optimizer.lr=0.01", "trainer=smoke", "dataset.num_train=4")
    assert code == 0, err


def test_to_find_what_an_optimizer_keeps_one_step_is_tried_that_takes_no_random_number_of_the_run(monkeypatch):
    steps = []
    monkeypatch.setattr(optimizer_groups, "_LARGE", 0)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: steps.append(torch.rand(1)))
    model, before = nn.Linear(2, 2), torch.get_rng_state()
    check_room_for_training({"_target_": "torch.optim.SGD", "lr": 0.1}, model, torch.device("cpu"))
    assert len(steps) == 1
    assert torch.equal(torch.get_rng_state(), before)
