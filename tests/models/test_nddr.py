"""NDDR-CNN."""

import pytest
import torch
from torch import nn

from mtlrun.models import NDDR
from mtlrun.models.nddr import NDDRLayer

TASKS = ("a", "b", "c")


@pytest.mark.parametrize("shape", [(4, 3, 3), (4,)])
def test_layer_concatenates_the_tasks_and_reduces_them_for_each_task(shape):
    layer = NDDRLayer(TASKS, shape, self_weight=0.9)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    features = [torch.randn(5, *shape) for _ in TASKS]
    for task, reduced in zip(TASKS, layer(features), strict=True):
        weight = layer[task][0].weight.flatten(1)
        linear = torch.einsum("oi,bi...->bo...", weight, torch.cat(features, dim=1))
        others = [0, *range(2, linear.dim())]
        scale, shift = (getattr(layer[task][1], name).view(4, *[1] * (len(shape) - 1)) for name in ("weight", "bias"))
        mean = linear.mean(dim=others, keepdim=True)
        variance = linear.var(dim=others, keepdim=True, unbiased=False)
        expected = ((linear - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()
        assert reduced.shape == features[0].shape
        torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 3, 3), (4,)])
def test_layer_starts_as_a_weighted_mean_of_the_same_channel(shape):
    layer = NDDRLayer(TASKS, shape, self_weight=0.8).eval()  # BatchNorm of an untrained layer divides by sqrt(1 + 1e-5)
    features = [torch.rand(2, *shape) for _ in TASKS]
    for index, reduced in enumerate(layer(features)):
        expected = sum((0.8 if other == index else 0.1) * features[other] for other in range(3))
        torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-5)


def test_layer_has_no_bias():
    names = {name for name, _ in NDDRLayer(("a", "b"), (4, 2, 2), self_weight=0.9).named_parameters()}
    assert names == {f"{task}.{name}" for task in "ab" for name in ("0.weight", "1.weight", "1.bias")}


@pytest.mark.parametrize("shortcut", [False, True])
def test_features_are_fused_after_each_stage(backbone, three_tasks, make_inputs, shortcut):
    model = NDDR(three_tasks, backbone.make, shortcut=shortcut).eval()
    for layer in model.layers.parameters():
        if layer.dim() > 1:
            layer.data += 0.1 * torch.randn_like(layer)
    features = [make_inputs(backbone)] * 3
    history = []
    for index in range(len(model.layers)):
        stages = [network.stages[index] for network in model.backbones.values()]
        features = model.layers[index]([stage(x) for stage, x in zip(stages, features, strict=True)])
        history.append(features)
    for position, task in enumerate(three_tasks):
        last = features[position]
        if shortcut:
            size = tuple(last.shape[2:])
            pooled = nn.functional.adaptive_avg_pool2d
            fitted = [
                x if x.shape[2:] == size else (pooled(x, size) if size else x.mean(dim=(2, 3)))
                for x in (stage[position] for stage in history)
            ]
            last = model.shortcuts[task](torch.cat(fitted, dim=1))
        torch.testing.assert_close(model(make_inputs(backbone)).predictions[task], model.heads[task](last))


def test_last_reductions_belong_to_their_task_and_the_others_are_shared(mlp, tasks):
    model = NDDR(tasks, mlp.make, unit_lr_scale=7.0, shortcut=True)
    groups = {group.name: group for group in model.parameter_groups()}
    assert {name: (group.task, group.lr_scale) for name, group in groups.items()} == {
        "shared": (None, 1.0),
        "nddr": (None, 7.0),
        "nddr_kind": ("kind", 7.0),
        "kind": ("kind", 1.0),
        "nddr_place": ("place", 7.0),
        "place": ("place", 1.0),
    }
    shapes = {name: [tuple(p.shape) for p in group.parameters if p.dim() > 1] for name, group in groups.items()}
    assert shapes["nddr"] == [(12, 24), (12, 24)]
    assert shapes["nddr_kind"] == [(8, 16), (8, 20)]


def test_groups_of_the_shortcut_are_what_autograd_sees(maps, three_tasks, make_inputs):
    model = NDDR(three_tasks, maps.make, shortcut=True)
    predictions = model(make_inputs(maps)).predictions
    task_params = model.task_parameters()
    for task, prediction in predictions.items():
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(prediction.sum(), parameters, retain_graph=True, allow_unused=True)
        theirs = {id(p) for other in task_params if other != task for p in task_params[other]}
        for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
            assert (gradient is None) == (id(parameter) in theirs), name


@pytest.mark.parametrize("shortcut", [False, True])
def test_one_task_alone_has_no_fusion_layers(mlp, tasks, make_inputs, shortcut):
    model = NDDR({"kind": tasks["kind"]}, mlp.make, shortcut=shortcut)
    assert len(model.layers) == 0
    names = ["shared", "nddr_kind", "kind"] if shortcut else ["shared", "kind"]
    assert [group.name for group in model.parameter_groups()] == names
    assert model(make_inputs(mlp)).predictions["kind"].shape == (4, 3)


def test_backbones_start_from_different_weights(mlp, tasks):
    ours, theirs = (next(network.parameters()) for network in NDDR(tasks, mlp.make).backbones.values())
    assert not torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("self_weight", -0.1, r"in \[0, 1\]"),
        ("self_weight", 1.5, r"in \[0, 1\]"),
        ("unit_lr_scale", 0.0, "> 0, or auto"),
    ],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        NDDR(tasks, mlp.make, **{argument: wrong})
