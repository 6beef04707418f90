"""Sluice networks."""

import pytest
import torch
from torch import nn

from mtlrun.models import Sluice
from mtlrun.models.backbones import Backbone
from mtlrun.models.blocks.parallel_backbones import one_of
from mtlrun.models.sluice import Skip, SubspaceUnit
from mtlrun.tasks import Regression


def penalty(model):
    inputs = torch.zeros(4, *one_of(model.backbones).input_shape)
    return model(inputs).regularizers["orthogonality"]


@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (2, 6)])
def test_unit_mixes_the_subspaces_of_all_tasks(shape):
    unit = SubspaceUnit(2, 3, self_weight=0.9)
    nn.init.normal_(unit.alpha)
    features = [torch.randn(shape), torch.randn(shape)]
    mixed = unit(features)
    for task in range(2):
        for channel in range(6):
            expected = sum(
                unit.alpha[3 * task + channel // 2, 3 * other + space] * features[other][:, 2 * space + channel % 2]
                for other in range(2)
                for space in range(3)
            )
            torch.testing.assert_close(mixed[task][:, channel], expected)


def test_subspaces_of_unequal_size_are_mixed_as_if_filled_up_with_zeros():
    unit = SubspaceUnit(1, 2, self_weight=0.9)
    unit.alpha.data = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    features = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])  # subspaces (1, 2, 3) and (4, 5)
    (mixed,) = unit([features])
    assert mixed.tolist() == [[41.0, 52.0, 3.0, 4100.0, 5200.0]]


def test_alphas_start_with_self_weight_on_the_diagonal_and_the_rest_spread():
    expected = torch.full((4, 4), 0.1 / 3).fill_diagonal_(0.9)
    torch.testing.assert_close(SubspaceUnit(2, 2, self_weight=0.9).alpha.data, expected)
    assert SubspaceUnit(1, 1, self_weight=0.3).alpha.item() == 1.0


def test_betas_start_with_most_weight_on_the_last_stage_and_the_rest_spread():
    shapes = [(4, 8, 8), (4, 4, 4), (6,)]
    torch.testing.assert_close(Skip(shapes, last_weight=0.8).beta.data, torch.tensor([0.1, 0.1, 0.8]))
    assert Skip([(6,)], last_weight=0.8).beta.tolist() == [1.0]


def test_skip_adds_up_stages_of_one_shape_by_their_betas():
    skip = Skip([(4, 3, 3)] * 3, last_weight=0.8)
    assert [name for name, _ in skip.named_parameters()] == ["beta"]
    stages = [torch.full((2, 4, 3, 3), value) for value in (1.0, 10.0, 100.0)]
    torch.testing.assert_close(skip(stages), torch.full((2, 4, 3, 3), 0.1 + 1.0 + 80.0))


def test_skip_resizes_other_shapes_and_maps_their_channels():
    maps, vectors = torch.randn(2, 4, 6, 6), torch.randn(2, 3)
    skip = Skip([(4, 6, 6), (3,)], last_weight=0.8)
    expected = 0.2 * maps.mean(dim=(2, 3)) @ skip.adapters[0][1].weight.T + 0.8 * vectors
    torch.testing.assert_close(skip([maps, vectors]), expected)
    smaller = torch.randn(2, 5, 3, 3)
    skip = Skip([(4, 6, 6), (5, 3, 3)], last_weight=0.8)
    pooled = nn.functional.avg_pool2d(maps, 2)
    expected = 0.2 * torch.einsum("bchw,dc->bdhw", pooled, skip.adapters[0][1].weight.flatten(1)) + 0.8 * smaller
    torch.testing.assert_close(skip([maps, smaller]), expected)


def test_stages_are_mixed_one_by_one_and_heads_see_all_of_them(backbone, tasks, make_inputs):
    model = Sluice(tasks, backbone.make)
    for unit in model.units:
        nn.init.normal_(unit.alpha)
    for skip in model.skips.values():
        nn.init.normal_(skip.beta)
    model.eval()
    features, history = [make_inputs(backbone)] * 2, []
    for index, unit in enumerate(model.units):
        stages = [network.stages[index] for network in model.backbones.values()]
        features = unit([stage(x) for stage, x in zip(stages, features, strict=True)])
        history.append(features)
    for position, task in enumerate(tasks):
        mixed = model.skips[task]([stage[position] for stage in history])
        torch.testing.assert_close(model(make_inputs(backbone)).predictions[task], model.heads[task](mixed))


def test_penalty_is_the_squared_product_of_weights_of_different_subspaces(mlp, tasks):
    model = Sluice(tasks, mlp.make, orthogonality_weight=0.5)
    expected = 0.0
    for network in model.backbones.values():
        for weight in (network.stages[0][1].weight, network.stages[1][0].weight):  # [12, 18] and [8, 12]
            half = len(weight) // 2
            expected += sum((ours @ theirs).item() ** 2 for ours in weight[:half] for theirs in weight[half:])
    assert penalty(model).item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_penalty_takes_all_pairs_of_subspaces_and_the_last_convolution_of_a_stage():
    class Deep(Backbone):
        def __init__(self):
            convolutions = [nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5)]
            stage = nn.Sequential(*convolutions, nn.Conv2d(5, 5, 1), nn.MaxPool2d(2))
            super().__init__([stage, nn.ReLU()], (2, 4, 4))

    model = Sluice({"a": Regression(1)}, Deep, num_subspaces=3, orthogonality_weight=1.0)
    rows = model.backbones["a"].stages[0][4].weight.flatten(1)
    spaces = [rows[:2], rows[2:4], rows[4:]]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum((spaces[a] @ spaces[b].T).square().sum().item() for a, b in pairs)
    assert penalty(model).item() == pytest.approx(expected, rel=1e-5)


def test_descent_on_the_penalty_makes_the_subspaces_orthogonal(mlp, tasks):
    model = Sluice(tasks, mlp.make, orthogonality_weight=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = penalty(model).item()
    for _ in range(20):
        optimizer.zero_grad()
        penalty(model).backward()
        optimizer.step()
    assert penalty(model).item() < 0.5 * before
    assert all(parameter.grad is None for parameter in (*model.heads.parameters(), *model.units.parameters()))


@pytest.mark.parametrize("changes", [{"orthogonality_weight": 0.0}, {"num_subspaces": 1}])
def test_no_penalty_without_subspaces_or_factor(mlp, tasks, make_inputs, changes):
    assert not Sluice(tasks, mlp.make, **changes)(make_inputs(mlp)).regularizers


def test_networks_with_a_self_weight_of_one_are_independent(backbone, tasks, make_inputs):
    model, inputs = Sluice(tasks, backbone.make, self_weight=1.0, last_stage_weight=1.0).eval(), make_inputs(backbone)
    for task in tasks:
        torch.testing.assert_close(model(inputs).predictions[task], model.heads[task](model.backbones[task](inputs)))


def test_mixing_weights_have_their_own_learning_rate_and_betas_belong_to_their_task(mlp, tasks):
    groups = {group.name: group for group in Sluice(tasks, mlp.make, unit_lr_scale=7.0).parameter_groups()}
    assert {name: (group.task, group.lr_scale) for name, group in groups.items()} == {
        "shared": (None, 1.0),
        "alpha": (None, 7.0),
        "beta_kind": ("kind", 7.0),
        "kind": ("kind", 1.0),
        "beta_place": ("place", 7.0),
        "place": ("place", 1.0),
    }
    assert [parameter.shape for parameter in groups["alpha"].parameters] == [(4, 4), (4, 4)]
    assert [parameter.shape for parameter in groups["beta_kind"].parameters] == [(2,)]
    assert groups["kind"].parameters[0].shape == (8, 12)


def test_backbones_start_from_different_weights(mlp, tasks):
    ours, theirs = (next(network.parameters()) for network in Sluice(tasks, mlp.make).backbones.values())
    assert not torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [
        ("self_weight", -0.1, r"in \[0, 1\]"),
        ("last_stage_weight", 1.5, r"in \[0, 1\]"),
        ("orthogonality_weight", -1.0, ">= 0"),
        ("unit_lr_scale", 0.0, "> 0"),
        ("num_subspaces", 0, ">= 1"),
        ("num_subspaces", 9, r"in 1\.\.8, the channels of the narrowest stage"),
    ],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        Sluice(tasks, mlp.make, **{argument: wrong})


def test_a_penalty_on_nothing_is_refused(tasks):
    def make():
        return Backbone([nn.AvgPool2d(2)], (4, 4, 4))

    with pytest.raises(ValueError, match=r"orthogonality_weight must be 0 for a backbone with no .*, found 0\.1"):
        Sluice(tasks, make)
    assert Sluice(tasks, make, orthogonality_weight=0.0)(torch.zeros(2, 4, 4, 4)).predictions["kind"].shape == (2, 3)
