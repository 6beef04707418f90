"""PAD-Net."""

import pytest
import torch

from mtlrun.models import PADNet
from mtlrun.tasks import Classification


@pytest.mark.parametrize("gate", ["receiver", "sender"])
def test_final_predictions_draw_on_the_other_tasks_features(mlp, three_tasks, make_inputs, gate):
    model = PADNet(three_tasks, mlp.make, channels=5, gate=gate).eval()
    inputs = make_inputs(mlp)
    features = {task: model.branches[task](model.trunk(inputs)) for task in three_tasks}
    module = model.distillations["size"]
    looked = {"receiver": ["size", "size"], "sender": ["kind", "place"]}[gate]
    expected = features["size"]
    for other, name in zip(["kind", "place"], looked, strict=True):
        opened = torch.sigmoid(features[name] @ module.gates[name].weight.T)
        expected = expected + opened * (features[other] @ module.messages[other].weight.T)
    torch.testing.assert_close(model(inputs).predictions["size"], model.heads["size"](expected))


def test_first_predictions_are_supervised_in_training(mlp, tasks, make_inputs):
    model = PADNet(tasks, mlp.make, channels=5, auxiliary_weight=0.3)
    for module in model.modules():  # BatchNorm with the same statistics both times
        if "BatchNorm" in type(module).__name__:
            module.eval()
    inputs = make_inputs(mlp)
    (first,) = model(inputs).auxiliary
    assert first.weight == 0.3
    for task in tasks:
        expected = model.auxiliary_heads[task](model.branches[task](model.trunk(inputs)))
        torch.testing.assert_close(first.predictions[task], expected)
        assert not torch.allclose(expected, model(inputs).predictions[task])


def test_channels_set_the_width_of_the_tasks_features(maps, dense_tasks):
    model = PADNet(dense_tasks, maps.make, channels=11)
    assert [p.shape[:2] for p in model.distillations["heat"].parameters()] == [(11, 11)] * 3
    assert model.heads["place"][1].in_features == 11


def test_branches_are_shared_and_receiving_layers_belong_to_their_task(mlp, tasks):
    model = PADNet(tasks, mlp.make, channels=5)
    task_params = model.task_parameters()["kind"]
    parts = [model.auxiliary_heads["kind"], model.distillations["kind"], model.heads["kind"]]
    assert {id(p) for p in task_params} == {id(p) for part in parts for p in part.parameters()}
    shared = {id(p) for p in model.shared_parameters()}
    assert {id(p) for p in model.branches["kind"].parameters()} < shared


def test_one_task_alone_goes_from_its_branch_to_its_head(mlp, make_inputs):
    model, inputs = PADNet({"kind": Classification(3)}, mlp.make).eval(), make_inputs(mlp)
    expected = model.heads["kind"](model.branches["kind"](model.trunk(inputs)))
    torch.testing.assert_close(model(inputs).predictions["kind"], expected)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [("channels", 0, ">= 1"), ("auxiliary_weight", 0.0, "> 0"), ("auxiliary_weight", -1.0, "> 0")],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        PADNet(tasks, mlp.make, **{argument: wrong})
