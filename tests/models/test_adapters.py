"""Adapters."""

from functools import partial

import pytest
import torch

from mtlrun.models import Adapters, HardSharing
from mtlrun.models.adapters import Adapter
from mtlrun.models.backbones import LeNet, SegNet


def perturb(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_adapter_is_a_residual_bottleneck():
    adapter = Adapter((2,), 1)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[1.0, -2.0]]))
        adapter.down.bias.fill_(0.5)
        adapter.up.weight.copy_(torch.tensor([[3.0], [-1.0]]))
        adapter.up.bias.copy_(torch.tensor([0.0, 10.0]))
    features = torch.tensor([[4.0, 1.0], [1.0, 4.0]])  # the bottleneck is given 2.5 and -6.5
    inner = [2.5 * 0.9937903, 0.0]  # x Phi(x)
    expected = torch.tensor([[4 + 3 * inner[0], 11 - inner[0]], [1.0, 14.0]])
    torch.testing.assert_close(adapter(features), expected, rtol=1e-5, atol=1e-5)


def test_adapter_of_maps_is_the_same_at_each_place():
    adapter = perturb(Adapter((4, 2, 3), 2))
    features = torch.randn(5, 4, 2, 3)
    vectors = perturb(Adapter((4,), 2))
    vectors.load_state_dict(
        {name: value.reshape(vectors.state_dict()[name].shape) for name, value in adapter.state_dict().items()}
    )
    torch.testing.assert_close(adapter(features)[:, :, 1, 2], vectors(features[:, :, 1, 2]))


def test_model_starts_as_hard_sharing(backbone, tasks, make_inputs):
    torch.manual_seed(0)
    model = Adapters(tasks, backbone.make)
    torch.manual_seed(0)
    hard = HardSharing(tasks, backbone.make)
    inputs = make_inputs(backbone)
    for mode in (True, False):
        expected, found = hard.train(mode)(inputs).predictions, model.train(mode)(inputs).predictions
        for task in tasks:
            torch.testing.assert_close(found[task], expected[task])


def test_places_of_pooled_maxima_are_kept_per_task(dense_tasks):
    segnet = partial(SegNet, (3, 8, 8), channels=[4, 6], convolutions=[1, 1])
    model = perturb(Adapters(dense_tasks, segnet))
    inputs = torch.randn(2, 3, 8, 8)
    found = model(inputs).predictions
    for task, prediction in found.items():
        features, cache = inputs, {}
        for index, adapter in enumerate(model.adapters[task]):
            features = adapter(model.trunk.network.stage(index, features, cache))
        torch.testing.assert_close(prediction, model.heads[task](features))


def test_features_are_adapted_after_each_stage(backbone, three_tasks, make_inputs):
    model, inputs = perturb(Adapters(three_tasks, backbone.make)), make_inputs(backbone)
    for task, prediction in model(inputs).predictions.items():
        features = inputs
        for stage, adapter in zip(model.trunk.network.stages, model.adapters[task], strict=True):
            features = adapter(stage(features))
        torch.testing.assert_close(prediction, model.heads[task](features))


@pytest.mark.parametrize(("reduction", "widths"), [(1, [12, 8]), (4, [3, 2]), (5, [2, 1]), (100, [1, 1])])
def test_reduction_sets_the_width_of_the_bottlenecks(mlp, tasks, reduction, widths):
    model = Adapters(tasks, mlp.make, reduction=reduction)
    assert [adapter.down.out_features for adapter in model.adapters["place"]] == widths


def test_each_task_has_its_own_batch_norm_statistics_after_its_first_adapter(maps, tasks, make_inputs):
    model, inputs = perturb(Adapters(tasks, maps.make)), make_inputs(maps)
    model(inputs)
    kind, place = (model.trunk.statistics[task].by_name() for task in tasks)
    assert kind["stages.1.1.num_batches_tracked"] == place["stages.1.1.num_batches_tracked"] == 1
    assert not torch.equal(kind["stages.1.1.running_mean"], place["stages.1.1.running_mean"])
    common = dict(model.trunk.network.named_buffers())
    assert common["stages.0.1.num_batches_tracked"] == 1  # the first stage is run once, for all
    assert common["stages.1.1.num_batches_tracked"] == 0


def test_evaluation_uses_the_statistics_of_the_task(maps, tasks, make_inputs):
    model, inputs = Adapters(tasks, maps.make).eval(), make_inputs(maps)
    before = model(inputs).predictions
    model.trunk.statistics["kind"].by_name()["stages.2.1.running_mean"].add_(1.0)
    after = model(inputs).predictions
    assert not torch.allclose(after["kind"], before["kind"])
    assert torch.equal(after["place"], before["place"])


def test_frozen_trains_adapters_and_heads_alone(maps, tasks, make_inputs):
    model = Adapters(tasks, maps.make, freeze_backbone=True).train()
    before = {name: value.clone() for name, value in model.trunk.state_dict().items()}
    sum(prediction.square().sum() for prediction in model(make_inputs(maps)).predictions.values()).backward()
    reached = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {"adapters", "heads"}
    for name, value in model.trunk.state_dict().items():
        assert torch.equal(value, before[name]), name  # BatchNorm's statistics stand as well
    assert model.shared_parameters() == []
    groups = {group.name: group for group in model.parameter_groups()}
    assert len(groups["shared"].parameters) == len(list(model.trunk.parameters())) > 0


def test_a_frozen_backbone_stays_in_evaluation_mode(tasks):
    model = Adapters(tasks, partial(LeNet, (1, 16, 16), dropout=0.5), freeze_backbone=True).train()
    inputs = torch.randn(4, 1, 16, 16)
    assert torch.equal(model(inputs).predictions["kind"], model(inputs).predictions["kind"])
    assert model.training
    assert model.heads.training


def test_reduction_out_of_bounds_is_refused(mlp, tasks):
    with pytest.raises(ValueError, match="reduction must be >= 1, found 0"):
        Adapters(tasks, mlp.make, reduction=0)
