"""The optimizer's step: groups stepped as one, and PyTorch's fused implementation by default."""

import copy
from functools import partial

import pytest
import torch
from helpers import QUICK, read_record
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.gradients import backward
from mtlrun.setup.prepare import prepare
from mtlrun.training.stepping import Stepper
from mtlrun.weightings import PCGrad

OPTIMIZERS = {
    "adam": lambda groups: torch.optim.Adam(groups, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, fused=True),
    "rmsprop": torch.optim.RMSprop,
}


class Counting(torch.optim.Adam):
    """An optimizer that keeps a number in each of its groups."""

    def step(self):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
        super().step()


def make_groups():
    """Return five groups of two kinds of settings."""
    torch.manual_seed(0)
    rates = {"shared": 0.1, "a": 0.1, "b": 0.02, "c": 0.1, "d": 0.02}
    return [
        {"params": [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2))], "lr": lr, "name": name}
        for name, lr in rates.items()
    ]


@pytest.mark.parametrize("make", [*OPTIMIZERS.values(), Counting], ids=[*OPTIMIZERS, "counting"])
def test_groups_of_equal_settings_are_stepped_as_one_with_the_same_result(make):
    groups, twins = make_groups(), make_groups()
    optimizer, plain = make(groups), make(twins)
    stepper, calls = Stepper(optimizer), []
    optimizer.register_step_pre_hook(lambda optimizer, *_: calls.append(len(optimizer.param_groups)))
    for step in range(4):
        if step == 2:  # a continued run
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for both in (optimizer, plain):
            for number, group in enumerate(both.param_groups):
                group["lr"] = (0.1 if group["name"] in ("shared", "a", "c") else 0.02) * (1 - step / 8)
                for parameter in group["params"]:
                    parameter.grad = torch.full_like(parameter, number - step)
        groups[0]["params"][1].grad = twins[0]["params"][1].grad = None
        stepper.step()
        plain.step()
    assert set(calls) == {5 if make is Counting else 2}
    assert [group["name"] for group in optimizer.param_groups] == ["shared", "a", "b", "c", "d"]
    for group, twin in zip(optimizer.param_groups, plain.param_groups, strict=True):
        torch.testing.assert_close(group["params"], twin["params"], rtol=0, atol=0)
        assert group.get("count") == twin.get("count")
    stepper.zero_grad()
    assert all(parameter.grad is None for group in groups for parameter in group["params"])


def test_a_step_with_found_inf_changes_nothing():
    groups = make_groups()
    stepper = Stepper(torch.optim.Adam(groups, fused=True))
    parameters = [parameter for group in groups for parameter in group["params"]]
    before = [parameter.detach().clone() for parameter in parameters]
    assert stepper.knows_found_inf
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, torch.nan)
    stepper.step(torch.ones(()))
    torch.testing.assert_close([parameter.detach() for parameter in parameters], before, rtol=0, atol=0)
    assert not Stepper(torch.optim.Adam(groups)).knows_found_inf


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adagrad"])
def test_the_fused_implementation_is_the_default_and_states_go_both_ways(optimizer):
    overrides = [*QUICK, f"optimizer={optimizer}"]
    if optimizer == "adagrad":
        overrides = [*QUICK, "optimizer=sgd", "optimizer._target_=torch.optim.Adagrad", "~optimizer.momentum"]
        overrides.append("~optimizer.nesterov")
    fused, plain = (prepare(compose([*overrides, *more])).optimizer for more in ([], ["+optimizer.fused=false"]))
    assert [group["fused"] for group in fused.param_groups] == [True] * len(fused.param_groups)
    assert [group["fused"] for group in plain.param_groups] == [False] * len(plain.param_groups)

    def step(both):
        for each in both:
            for group in each.param_groups:
                for number, parameter in enumerate(group["params"]):
                    parameter.grad = torch.sin(torch.arange(parameter.numel()) + number).view_as(parameter)
            Stepper(each).step()

    def numbers(each):
        return [parameter.detach() for group in each.param_groups for parameter in group["params"]]

    step([fused, plain])
    torch.testing.assert_close(numbers(fused), numbers(plain))
    one, other = copy.deepcopy(fused.state_dict()), copy.deepcopy(plain.state_dict())
    fused.load_state_dict(other)
    plain.load_state_dict(one)
    assert (fused.param_groups[0]["fused"], plain.param_groups[0]["fused"]) == (True, False)
    step([fused, plain])
    torch.testing.assert_close(numbers(fused), numbers(plain))


def test_a_run_learns_the_same_with_and_without_the_fused_implementation(quick):
    fused, plain = (read_record(quick(*more)) for more in ([], ["+optimizer.fused=false"]))
    assert fused["val"]["left"]["loss"] == pytest.approx(plain["val"]["left"]["loss"], rel=1e-4)


def test_gradients_lie_in_memory_as_their_parameters_for_the_fused_implementation_reads_them_in_that_order():
    torch.manual_seed(0)
    start, inputs = torch.randn(4, 3), torch.randn(5, 3)
    found = []
    for fused in (False, True):
        shared = nn.Parameter(start.clone())
        heads = [nn.Parameter(torch.ones(4, 2)) for _ in range(2)]
        features = inputs @ shared.t()
        losses = [torch.einsum("bi,io->ob", features, head).square().mean() for head in heads]
        (raw,) = torch.autograd.grad(losses[0], [heads[0]], retain_graph=True)
        assert fused or raw.stride() != heads[0].stride(), "choose an operation whose gradient is transposed"
        weighting = PCGrad()
        weighting.setup(2)
        backward(weighting, losses, [shared], [[head] for head in heads])
        torch.optim.Adam([shared, *heads], fused=fused).step()
        found.append([parameter.detach() for parameter in (shared, *heads)])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, momentum=0.9, nesterov=True), torch.optim.Adam])
def test_parameters_without_a_gradient_in_some_steps_are_trained_as_without_the_fused_implementation(make):
    found = []
    for fused in (False, True):
        groups = make_groups()
        groups[0]["params"].append(nn.Parameter(torch.ones(2, dtype=torch.float64)))
        optimizer = make(groups, lr=0.1, fused=fused)
        for step in range(4):
            for group in groups:
                for parameter in group["params"]:
                    # Tasks without a label: some at first, and then all that have the other learning rate.
                    absent = (step == 0 and group["name"] in ("a", "d")) or (step == 2 and group["name"] in ("b", "d"))
                    parameter.grad = None if absent else torch.full_like(parameter, 1.0 + step)
            Stepper(optimizer).step()
        found.append([parameter.detach() for group in groups for parameter in group["params"]])
    torch.testing.assert_close(found[1], found[0])
