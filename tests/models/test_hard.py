"""Hard parameter sharing."""

import pytest
import torch

from mtlrun.models import HardSharing
from mtlrun.models.backbones import MLP, LeNet
from mtlrun.tasks import Regression


def test_predictions_are_the_heads_on_the_trunk(mlp, tasks, make_inputs):
    model, inputs = HardSharing(tasks, mlp.make), make_inputs(mlp)
    features = model.trunk(inputs)
    assert torch.equal(model.encode(inputs), features)
    assert torch.equal(model(inputs).predictions["place"], model.heads["place"](features))
    assert torch.equal(model.decode(features)["kind"], model(inputs).predictions["kind"])


def test_representation_separates_shared_from_task_parameters(backbone, tasks, make_inputs):
    model = HardSharing(tasks, backbone.make)
    representation = model.encode(make_inputs(backbone))
    losses = [prediction.sum() for prediction in model.decode(representation.detach().requires_grad_()).values()]
    shared = model.shared_parameters()
    assert all(
        gradient is None for gradient in torch.autograd.grad(sum(losses), shared, allow_unused=True, retain_graph=True)
    )
    reached = torch.autograd.grad(representation.sum(), shared, allow_unused=True)
    assert all(gradient is not None for gradient in reached)


@pytest.mark.parametrize("backbone", [MLP((5,), hidden=[4, 3]), LeNet((1, 16, 16), channels=(3, 4), features=3)])
def test_last_layer_is_the_last_linear_layer_of_the_trunk(tasks, backbone):
    model = HardSharing(tasks, lambda: backbone)
    weight, bias = model.last_layer()
    assert weight is backbone.stages[-1][-2 if isinstance(backbone, MLP) else 1].weight
    assert weight.shape == (3, 4)
    assert bias.shape == (3,)


def test_last_layer_leaves_out_what_is_frozen(tasks):
    model = HardSharing(tasks, lambda: MLP((5,), hidden=[4, 3]))
    for parameter in model.trunk.stages[-1].parameters():
        parameter.requires_grad_(False)
    assert [tuple(parameter.shape) for parameter in model.last_layer()] == [(4, 5), (4,)]


def test_a_head_that_changes_the_representation_in_place_is_named():
    class Careless(HardSharing):
        def decode(self, representation, tasks=None, cache=None):
            return super().decode(representation.add_(1), tasks, cache)

    model = Careless({"a": Regression()}, lambda: MLP((3,), [4]))
    with pytest.raises(RuntimeError, match=r"Careless\.decode changes the representation in place"):
        model(torch.randn(2, 3))


def test_each_task_keeps_its_own_rotation_where_others_are_not_wanted(mlp, three_tasks, make_inputs):
    model = HardSharing(three_tasks, mlp.make)
    model.add_rotations().normal_()
    inputs = make_inputs(mlp)
    full = model(inputs).predictions
    for task in three_tasks:
        assert torch.equal(model(inputs, [task]).predictions[task], full[task])


@pytest.mark.parametrize("split", [1, 2])
def test_stages_after_the_split_belong_to_the_tasks(maps, three_tasks, make_inputs, split):
    model = HardSharing(three_tasks, maps.make, shared_stages=split)
    inputs = make_inputs(maps)
    shared = {
        name.split(".")[2] for name, p in model.named_parameters() if id(p) in {*map(id, model.shared_parameters())}
    }
    assert shared == {str(index) for index in range(split)}
    task_sizes = [sum(p.numel() for p in parameters) for parameters in model.task_parameters().values()]
    whole = maps.make()
    after = sum(p.numel() for stage in whole.stages[split:] for p in stage.parameters())
    heads = [sum(p.numel() for p in head.parameters()) for head in model.heads.values()]
    assert task_sizes == [after + head for head in heads]
    features = model.trunk.stages[0](inputs) if split == 1 else model.trunk.stages[1](model.trunk.stages[0](inputs))
    torch.testing.assert_close(model.encode(inputs), features)
    for stage in model.branches["size"].stages[split:]:
        features = stage(features)
    torch.testing.assert_close(model(inputs).predictions["size"], model.heads["size"](features))


@pytest.mark.parametrize(
    ("split", "allowed"), [(0, ">= 1, or null"), (4, r"null or in 1\.\.3, the stages of the backbone")]
)
def test_a_split_beyond_the_stages_is_refused(maps, tasks, split, allowed):
    with pytest.raises(ValueError, match=rf"shared_stages must be {allowed}, found {split}"):
        HardSharing(tasks, maps.make, shared_stages=split)
