"""MTAN."""

import pytest
import torch
from torch import nn

from mtlrun.models import MTAN
from mtlrun.models.backbones import LeNet, SegNet
from mtlrun.models.mtan import Attention
from mtlrun.tasks import Classification


def test_mask_is_a_sigmoid_of_two_layers_on_both_inputs_and_weights_the_features():
    attention = Attention((2,), has_previous=True, reduction=1).eval()  # BatchNorm passes on what it gets
    first, second = attention.mask[0], attention.mask[3]
    first.weight.data = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]])  # g: u_1 + v_1, u_2 - v_2
    second.weight.data = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    features, previous = torch.tensor([[2.0, 4.0]]), torch.tensor([[-1.5, 5.0]])
    # g = (.5, -1), so after ReLU (.5, 0), and h = (.5, 0)
    expected = torch.tensor([[2 * torch.tensor(0.5).sigmoid(), 4 * 0.5]])
    torch.testing.assert_close(attention(features, previous), expected, rtol=1e-4, atol=1e-4)


def test_mask_of_maps_looks_at_each_place_alone():
    attention = Attention((3, 4, 4), has_previous=False, reduction=1).eval()
    features = torch.randn(2, 3, 4, 4)
    changed = features.clone()
    changed[:, :, 1, 2] += 1.0
    differs = (attention(features) != attention(changed)).any(dim=1)
    assert differs[:, 1, 2].all()
    assert differs.sum() == 2  # in each of the two samples


@pytest.mark.parametrize(("reduction", "hidden"), [(1, 8), (4, 2), (100, 1)])
def test_reduction_narrows_the_hidden_layer(reduction, hidden):
    attention = Attention((8,), has_previous=True, reduction=reduction)
    assert [tuple(p.shape) for p in attention.mask.parameters() if p.dim() == 2] == [(hidden, 16), (8, hidden)]


def perturbed(model):
    """Let BatchNorm have seen something, so that it is no identity in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def test_tasks_follow_their_own_masks_from_maps_to_vectors(tasks):
    model = perturbed(MTAN(tasks, lambda: LeNet((1, 16, 16), channels=(3, 4), features=8)))
    inputs = torch.randn(2, 1, 16, 16)
    first = model.trunk.stages[0](inputs)
    second = model.trunk.stages[1](first)
    third = model.trunk.stages[2](second)
    to_second, to_third = (transition[:3] for transition in model.transitions)
    for task in tasks:
        one, two, three = model.attention[task]
        attended = one.mask(first) * first
        passed = nn.functional.adaptive_avg_pool2d(to_second(attended), second.shape[2:])
        attended = two.mask(torch.cat([second, passed], dim=1)) * second
        passed = to_third(attended).mean(dim=(2, 3))
        attended = three.mask(torch.cat([third, passed], dim=1)) * third
        torch.testing.assert_close(model(inputs).predictions[task], model.heads[task](attended))


def test_shared_features_do_not_depend_on_the_masks(mlp, tasks, make_inputs):
    model = MTAN(tasks, mlp.make).eval()
    before = model(make_inputs(mlp)).predictions
    with torch.no_grad():
        for parameter in model.attention["kind"].parameters():
            parameter += 1.0
    after = model(make_inputs(mlp)).predictions
    assert torch.equal(after["place"], before["place"])
    assert not torch.equal(after["kind"], before["kind"])


def test_tasks_have_the_layers_between_stages_in_common(mlp, tasks, three_tasks):
    counts = [sum(p.numel() for p in MTAN(some, mlp.make).shared_parameters()) for some in (tasks, three_tasks)]
    # 18 -> 12 -> 8, and from the 12 of the first stage to the 8 of the second with BatchNorm
    assert counts == [18 * 12 + 12 + 12 * 8 + 8 + (12 * 8 + 2 * 8)] * 2


def test_an_encoder_and_decoder_is_attended_to_at_all_its_stages(dense_tasks):
    model = MTAN(dense_tasks, lambda: SegNet((3, 8, 8), channels=(4, 6), convolutions=(1, 1)))
    assert {task: len(modules) for task, modules in model.attention.items()} == dict.fromkeys(dense_tasks, 4)
    predictions = model(torch.randn(2, 3, 8, 8)).predictions
    assert {task: tuple(p.shape[1:]) for task, p in predictions.items()} == {
        "heat": (2, 8, 8),
        "flow": (1, 8, 8),
        "place": (2,),
    }


def test_one_task_alone_has_its_mask_and_its_head(mlp, make_inputs):
    model = MTAN({"kind": Classification(3)}, mlp.make)
    assert [tuple(p.shape) for p in model.task_parameters()["kind"]][-2:] == [(3, 8), (3,)]
    assert model(make_inputs(mlp)).predictions["kind"].shape == (4, 3)


def test_a_reduction_below_one_is_refused(mlp, tasks):
    with pytest.raises(ValueError, match="reduction must be >= 1, found 0"):
        MTAN(tasks, mlp.make, reduction=0)
