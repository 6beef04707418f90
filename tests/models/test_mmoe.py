"""Multi-gate mixture of experts."""

from functools import partial

import pytest
import torch

from mtlrun.models import MMoE
from mtlrun.models.backbones import MLP


def test_each_task_weights_all_experts_sample_by_sample(tasks):
    model = MMoE(tasks, partial(MLP, (5,), hidden=[4, 3]), num_experts=3)
    inputs = torch.randn(6, 5)
    predictions = model(inputs).predictions
    for task, gate in model.gates.items():
        weights = torch.softmax(inputs @ gate.linear.weight.mT, dim=1)
        experts = [expert(inputs) for expert in model.experts.values()]
        features = sum(weights[:, index, None] * expert for index, expert in enumerate(experts))
        torch.testing.assert_close(predictions[task], model.heads[task](features))


def test_a_gate_affects_only_its_task(maps, tasks, make_inputs):
    model, inputs = MMoE(tasks, maps.make, num_experts=2), make_inputs(maps)
    before = model(inputs).predictions
    model.gates["kind"].linear.weight.data += 1
    after = model(inputs).predictions
    assert not torch.equal(before["kind"], after["kind"])
    assert torch.equal(before["place"], after["place"])


def test_gates_of_images_see_a_grid(maps, tasks):
    assert MMoE(tasks, maps.make).gates["kind"].linear.weight.shape == (8, 3 * 4 * 4)


def test_the_number_of_experts_does_not_grow_with_that_of_tasks(mlp, tasks, three_tasks):
    assert len(MMoE(tasks, mlp.make).experts) == len(MMoE(three_tasks, mlp.make).experts) == 8


def test_gates_belong_to_the_tasks_and_experts_to_all(mlp, tasks):
    groups = {group.name: group for group in MMoE(tasks, mlp.make, num_experts=2).parameter_groups()}
    assert {name: group.task for name, group in groups.items()} == {"shared": None, "kind": "kind", "place": "place"}
    assert [tuple(p.shape) for p in groups["kind"].parameters] == [(2, 18), (3, 8), (3,)]


def test_a_single_expert_is_refused(mlp, tasks):
    with pytest.raises(ValueError, match=r"num_experts must be >= 2, found 1; a single one is model=hard"):
        MMoE(tasks, mlp.make, num_experts=1)
