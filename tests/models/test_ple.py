"""Progressive layered extraction."""

from functools import partial

import pytest
import torch

from mtlrun.models import PLE
from mtlrun.models.backbones import MLP
from mtlrun.models.blocks.parallel_backbones import one_of


def weights_of(gate, seen):
    return torch.softmax(seen @ gate.linear.weight.mT, dim=1)


def blend(weights, features):
    return sum(w.view(-1, *(1,) * (f.dim() - 1)) * f for w, f in zip(weights.unbind(1), features, strict=True))


def mean(features):
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


def test_levels_are_those_of_the_paper(backbone, tasks, make_inputs):
    """Two experts of each kind, written out path by path."""
    model = PLE(tasks, backbone.make, num_shared_experts=2, num_task_experts=2)
    inputs = make_inputs(backbone)
    kinds = ["task_kind_", "task_place_", "shared_"]
    paths = dict.fromkeys(kinds, inputs)
    seen = dict.fromkeys(kinds, model.view(inputs))
    last = len(one_of(model.experts).stage_shapes) - 1
    for level in range(last + 1):
        experts = {
            kind: [model.experts[f"{kind}{index}"].stages[level](paths[kind]) for index in (1, 2)] for kind in kinds
        }
        for task, kind in zip(tasks, kinds, strict=False):
            weights = weights_of(model.gates[level][task], seen[kind])
            paths[kind] = blend(weights, experts[kind] + experts["shared_"])
        if level < last:
            weights = weights_of(model.shared_gates[level], seen["shared_"])
            paths["shared_"] = blend(weights, [expert for kind in kinds for expert in experts[kind]])
        seen = {kind: mean(path) for kind, path in paths.items()}
    predictions = model(inputs).predictions
    for task in tasks:
        torch.testing.assert_close(predictions[task], model.heads[task](paths[f"task_{task}_"]))


def test_the_shared_path_gates_all_experts_and_ends_before_the_last_level(maps, three_tasks):
    model = PLE(three_tasks, maps.make, num_shared_experts=2, num_task_experts=3)
    assert [tuple(gate.linear.weight.shape) for gate in model.shared_gates] == [(3 * 3 + 2, 48), (3 * 3 + 2, 6)]
    assert [tuple(level["size"].linear.weight.shape) for level in model.gates] == [(5, 48), (5, 6), (5, 8)]


@pytest.mark.parametrize("num_stages", [1, 2, 3, 4])
def test_groups_are_what_autograd_sees_for_any_number_of_stages(three_tasks, num_stages):
    model = PLE(three_tasks, partial(MLP, (5,), hidden=[4] * num_stages), num_task_experts=2)
    found = {id(p): set() for p in model.parameters()}
    parameters = list(model.parameters())
    for task, prediction in model(torch.randn(3, 5)).predictions.items():
        gradients = torch.autograd.grad(prediction.sum(), parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            found[id(parameter)] |= {task} if gradient is not None else set()
    for group in model.parameter_groups():
        for parameter in group.parameters:
            assert found[id(parameter)] == ({group.task} if group.task else set(three_tasks))


def test_other_tasks_reach_a_task_s_experts_before_the_last_stage(tasks, make_inputs):
    model = PLE(tasks, partial(MLP, (5,), hidden=[4, 3]))
    expert = model.experts["task_kind_1"]
    model(torch.randn(2, 5)).predictions["place"].sum().backward()
    assert expert.stages[0][1].weight.grad.abs().sum() > 0
    assert expert.stages[1][0].weight.grad is None


def test_with_a_single_stage_nothing_but_the_shared_experts_is_shared(tasks):
    model = PLE(tasks, partial(MLP, (5,), hidden=[4]))
    assert len(model.shared_gates) == 0
    shared = {id(p) for p in model.shared_parameters()}
    assert shared == {id(p) for p in model.experts["shared_1"].parameters()}


def test_experts_of_one_unit_start_from_different_weights(mlp, tasks):
    experts = PLE(tasks, mlp.make, num_task_experts=2).experts
    assert not torch.equal(next(experts["task_kind_1"].parameters()), next(experts["task_kind_2"].parameters()))


@pytest.mark.parametrize("argument", ["num_shared_experts", "num_task_experts"])
def test_zero_experts_are_refused(mlp, tasks, argument):
    with pytest.raises(ValueError, match=f"{argument} must be >= 1, found 0; model="):
        PLE(tasks, mlp.make, **{argument: 0})
