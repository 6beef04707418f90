"""Adaptive task-to-task fusion."""

from functools import partial

import pytest
import torch
from torch import nn

from mtlrun.models import AdaTT
from mtlrun.models.adatt import Fusion
from mtlrun.models.backbones import MLP
from mtlrun.models.blocks.experts import stack_units
from mtlrun.models.heads import MLPHead
from mtlrun.tasks import Classification


def test_fusion_adds_the_native_experts_to_those_that_the_gate_mixes():
    fusion = Fusion(2, [2, 2, 1], unit=1)
    fusion.gate.linear.weight.data.zero_()  # a fifth for each
    fusion.native.data = torch.tensor([3.0, -1.0])
    features = [torch.randn(4, 6) for _ in range(5)]
    fused = fusion(torch.randn(4, 2), stack_units(features, [2, 2, 1]))
    torch.testing.assert_close(fused, sum(features) / 5 + 3 * features[2] - features[3])


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_a_single_native_expert_has_the_weight_one(unit):
    fusion = Fusion(2, [1, 1, 1], unit)
    fusion.gate.linear.weight.data.zero_()
    features = [torch.randn(4, 6, 3, 3) for _ in range(3)]
    fused = fusion(torch.randn(4, 2), stack_units(features, [1, 1, 1]))
    torch.testing.assert_close(fused, sum(features) / 3 + features[unit])
    assert [name for name, _ in fusion.named_parameters()] == ["gate.linear.weight"]


def test_weights_of_native_experts_start_uniform():
    weights = torch.cat([Fusion(2, [4, 4], unit=0).native.detach() for _ in range(100)])
    assert weights.abs().max() <= 0.5
    assert weights.abs().max() > 0.45
    assert weights.mean().abs() < 0.1


@pytest.mark.parametrize("num_shared_experts", [0, 2])
def test_all_units_are_fused_after_each_stage(tasks, num_shared_experts):
    model = AdaTT(tasks, partial(MLP, (5,), hidden=[4, 3]), num_task_experts=2, num_shared_experts=num_shared_experts)
    units = ["task_kind_", "task_place_", "shared_"][: 2 + (num_shared_experts > 0)]
    inputs = torch.randn(3, 5)
    paths = dict.fromkeys(units, inputs)
    for level in range(2):
        experts = {u: [model.experts[f"{u}{index}"].stages[level](paths[u]) for index in (1, 2)] for u in units}
        everyone = [expert for unit in units for expert in experts[unit]]
        fused = {}
        for unit, fusion in zip(units, model.fusions[level], strict=False):
            gate = torch.softmax(paths[unit] @ fusion.gate.linear.weight.mT, dim=1)
            fused[unit] = sum(gate[:, index, None] * expert for index, expert in enumerate(everyone))
            fused[unit] = fused[unit] + sum(w * expert for w, expert in zip(fusion.native, experts[unit], strict=True))
        paths = fused
    assert list(paths) == ["task_kind_", "task_place_"]  # the shared unit ends before the last fusion
    predictions = model(inputs).predictions
    for task in tasks:
        torch.testing.assert_close(predictions[task], model.heads[task](paths[f"task_{task}_"]))


def test_the_gate_sees_the_mean_of_maps(maps, tasks, make_inputs):
    model, inputs = AdaTT(tasks, maps.make), make_inputs(maps)
    seen = []
    model.fusions[1][0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    given = []
    model.experts["task_kind_1"].stages[1].register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    model(inputs)
    torch.testing.assert_close(seen[0], given[0].mean(dim=(2, 3)))


def test_one_task_with_one_expert_is_the_plain_network(backbone, make_inputs):
    torch.manual_seed(3)
    model = AdaTT({"kind": Classification(3)}, backbone.make)
    torch.manual_seed(3)
    trunk = backbone.make()
    plain, inputs = nn.Sequential(trunk, MLPHead(trunk.feature_shape, (3,))), make_inputs(backbone)
    torch.testing.assert_close(model(inputs).predictions["kind"], plain(inputs))
    assert len(list(model.parameters())) == len(list(plain.parameters()))


@pytest.mark.parametrize("num_stages", [1, 2, 3])
@pytest.mark.parametrize("num_shared_experts", [0, 2])
def test_groups_are_what_autograd_sees_for_any_number_of_stages(three_tasks, num_stages, num_shared_experts):
    factory = partial(MLP, (5,), hidden=[4] * num_stages)
    model = AdaTT(three_tasks, factory, num_task_experts=2, num_shared_experts=num_shared_experts)
    found = {id(p): set() for p in model.parameters()}
    parameters = list(model.parameters())
    for task, prediction in model(torch.randn(3, 5)).predictions.items():
        gradients = torch.autograd.grad(prediction.sum(), parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            found[id(parameter)] |= {task} if gradient is not None else set()
    for group in model.parameter_groups():
        for parameter in group.parameters:
            assert found[id(parameter)] == ({group.task} if group.task else set(three_tasks))


@pytest.mark.parametrize(("argument", "wrong", "bounds"), [("num_task_experts", 0, 1), ("num_shared_experts", -1, 0)])
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be >= {bounds}, found {wrong}"):
        AdaTT(tasks, mlp.make, **{argument: wrong})
