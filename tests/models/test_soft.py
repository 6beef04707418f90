"""Soft parameter sharing."""

from itertools import combinations

import pytest
import torch

from mtlrun.models import SoftSharing


def shift(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)


def penalty(model):
    inputs = torch.zeros(4, *model.backbones[model.task_names[0]].input_shape)
    return model(inputs).regularizers["soft_sharing"]


def test_penalty_is_the_mean_squared_distance_over_pairs_and_tensors(mlp, three_tasks):
    model = SoftSharing(three_tasks, mlp.make, strength=0.3)
    shift(model)
    distances = []
    for a, b in combinations(three_tasks, 2):
        theirs = dict(model.backbones[b].named_parameters())
        for name, ours in model.backbones[a].named_parameters():
            distances.append(((ours - theirs[name]) ** 2).sum().item())
    assert len(distances) == 3 * 4
    assert penalty(model).item() == pytest.approx(0.3 * sum(distances) / len(distances))


def test_penalty_draws_the_backbones_together_and_leaves_the_heads_alone(mlp, tasks):
    model = SoftSharing(tasks, mlp.make, strength=0.3)
    shift(model)
    penalty(model).backward()
    ours, theirs = (next(model.backbones[task].parameters()) for task in tasks)
    torch.testing.assert_close(ours.grad, 0.3 * 2 * (ours - theirs).detach() / 4)
    torch.testing.assert_close(theirs.grad, -ours.grad)
    assert all(parameter.grad is None for parameter in model.heads.parameters())


def test_backbones_start_equal_and_independent_in_memory(backbone, tasks):
    model = SoftSharing(tasks, backbone.make)
    first, second = model.backbones.values()
    assert penalty(model).item() == 0
    for ours, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_strength_of_zero_gives_no_penalty(mlp, tasks):
    model = SoftSharing(tasks, mlp.make, strength=0.0)
    shift(model)
    assert penalty(model).item() == 0


def test_each_task_has_its_own_network(mlp, tasks, make_inputs):
    model, inputs = SoftSharing(tasks, mlp.make), make_inputs(mlp)
    shift(model)
    for task in tasks:
        assert torch.equal(model(inputs).predictions[task], model.heads[task](model.backbones[task](inputs)))
    assert model.shared_parameters() == []


def test_negative_strength_is_refused(mlp, tasks):
    with pytest.raises(ValueError, match=r"strength must be >= 0, found -0\.5"):
        SoftSharing(tasks, mlp.make, strength=-0.5)
