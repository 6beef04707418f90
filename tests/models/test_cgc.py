"""Customized gate control."""

from functools import partial

import pytest
import torch

from mtlrun.models import CGC
from mtlrun.models.backbones import MLP


def test_each_task_weights_its_own_and_the_shared_experts(tasks):
    model = CGC(tasks, partial(MLP, (5,), hidden=[4, 3]), num_shared_experts=1, num_task_experts=2)
    assert list(model.experts) == ["task_kind_1", "task_kind_2", "task_place_1", "task_place_2", "shared_1"]
    inputs = torch.randn(6, 5)
    predictions = model(inputs).predictions
    for task in tasks:
        weights = torch.softmax(inputs @ model.gates[task].linear.weight.mT, dim=1)
        names = [f"task_{task}_1", f"task_{task}_2", "shared_1"]
        features = sum(weights[:, index, None] * model.experts[name](inputs) for index, name in enumerate(names))
        torch.testing.assert_close(predictions[task], model.heads[task](features))


def test_no_task_sees_another_task_s_experts(maps, tasks, make_inputs):
    model = CGC(tasks, maps.make, num_shared_experts=2, num_task_experts=2)
    prediction = model(make_inputs(maps)).predictions["kind"].sum()
    for name, expert in model.experts.items():
        (gradient,) = torch.autograd.grad(prediction, [next(expert.parameters())], retain_graph=True, allow_unused=True)
        assert (gradient is None) == name.startswith("task_place")


def test_experts_of_a_task_and_its_gate_belong_to_it(mlp, tasks):
    model = CGC(tasks, mlp.make, num_shared_experts=2, num_task_experts=3)
    groups = {group.name: {id(p) for p in group.parameters} for group in model.parameter_groups()}
    for name, expert in model.experts.items():
        owner = next((task for task in tasks if name.startswith(f"task_{task}_")), "shared")
        assert {id(p) for p in expert.parameters()} <= groups[owner]
    assert id(model.gates["kind"].linear.weight) in groups["kind"]
    assert model.gates["kind"].linear.weight.shape[0] == 5


@pytest.mark.parametrize("argument", ["num_shared_experts", "num_task_experts"])
def test_zero_experts_are_refused(mlp, tasks, argument):
    with pytest.raises(ValueError, match=f"{argument} must be >= 1, found 0; model="):
        CGC(tasks, mlp.make, **{argument: 0})
