"""`trainer.checkpoint_activations`: gradients and buffers are those of a model that keeps its activations."""

import copy
from functools import partial

import pytest
import torch
from architectures import NAMES, losses_of, make, penalties_of, perturbed
from conftest import Field, TinyMaps
from helpers import QUICK, read_record
from torch import nn

from mtlrun.models.backbones import MLP, ResNet, SegNet, ViT
from mtlrun.models.blocks.checkpointed import Checkpointed, checkpoint_activations
from mtlrun.models.heads import ASPPHead, DetectionHead


class Dropping(TinyMaps):
    """Maps by BatchNorm and dropout, so that random numbers and running statistics count."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        for stage in self.stages:
            stage.append(nn.Dropout2d(0.3))


def gradients_of(model, inputs, passes=2):
    """Return the gradients of each loss by backward passes over one graph, and the buffers afterwards."""
    torch.manual_seed(1)
    output = model(inputs)
    terms = [*losses_of(output).values(), *penalties_of(output)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = []
    for _ in range(passes):
        for term in terms:
            found += torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return found, [*model.buffers(), torch.get_rng_state()]


def check_equal(model, inputs):
    model.train()
    twin = copy.deepcopy(model)
    assert checkpoint_activations(model)
    for found, expected in zip(gradients_of(model, inputs), gradients_of(twin, inputs), strict=True):
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.equal(mine, theirs)
    return twin


@pytest.mark.parametrize("name", NAMES)
def test_every_model_gets_the_same_gradients_and_buffers(name):
    tasks = {"left": Field(2), "right": Field(1)}
    model = perturbed(make(name, tasks, partial(Dropping, (3, 8, 8))))
    check_equal(model, torch.randn(4, 3, 8, 8))


@pytest.mark.parametrize("kind", ["mlp", "resnet", "segnet", "vit"])
def test_backbones_get_the_same_gradients_and_buffers(kind):
    backbone = {
        "mlp": partial(MLP, hidden=[12, 12], dropout=0.4, norm="batch", residual=True),
        "resnet": partial(ResNet, width=0.125, stem="small"),
        "segnet": partial(SegNet, channels=[4, 6], convolutions=[1, 2]),
        "vit": partial(ViT, dim=8, depth=4, heads=2, dropout=0.2),
    }[kind]((3, 16, 16))
    check_equal(Plain(backbone), torch.randn(4, 3, 16, 16))


def test_heads_for_pixels_and_boxes_get_the_same_gradients():
    heads = {
        "aspp": ASPPHead((4, 6, 6), (2, 12, 12), rates=[1, 2], channels=4),
        "boxes": DetectionHead((4, 6, 6), (2, 48, 48), channels=32, num_convs=1),
    }
    for head in heads.values():
        check_equal(Plain(head), torch.randn(3, 4, 6, 6))


class Plain(nn.Module):
    """A module whose output stands for the prediction of one task."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, inputs):
        from mtlrun.models import Output

        return Output({"task": self.module(inputs)})


def test_activations_are_computed_anew_in_each_backward_pass_and_not_without_gradients():
    backbone = MLP((5,), hidden=[6, 4])
    calls = []
    backbone.stages[0].register_forward_pre_hook(lambda *_: calls.append(1))
    checkpoint_activations(backbone)
    loss = backbone(torch.randn(3, 5)).sum()
    counts = [len(calls)]
    for _ in range(2):
        torch.autograd.grad(loss, list(backbone.parameters()), retain_graph=True)
        counts.append(len(calls))
    with torch.no_grad():
        backbone(torch.randn(3, 5))
    assert counts == [1, 2, 3]
    assert len(calls) == 4
    assert not backbone.recomputes


def test_a_run_ends_with_the_same_numbers(quick):
    results = []
    for value in ("false", "true"):
        folder = quick(
            f"trainer.checkpoint_activations={value}",
            "weighting=upgrad",
            "backbone.norm=batch",
            "backbone=mlp",
            "trainer.precision=bf16",
        )
        results.append(read_record(folder)["test"])
    assert results[0] == results[1]


def test_what_cannot_be_computed_anew_is_refused(mtlrun, monkeypatch):
    key = "trainer.checkpoint_activations=true"
    code, _, err = mtlrun(*QUICK, key, "trainer.vmap_backward=true")
    assert (code, f"{key}: trainer.vmap_backward=true makes" in err) == (2, True), err
    monkeypatch.setattr("mtlrun.setup.memory_keys.Checkpointed", type("Other", (Checkpointed,), {}))
    code, _, err = mtlrun(*QUICK, key)
    assert (code, f"{key}: model=hard has no backbone of stages" in err) == (2, True), err
