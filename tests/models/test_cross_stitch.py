"""Cross-stitch networks."""

import pytest
import torch

from mtlrun.models import CrossStitch
from mtlrun.models.cross_stitch import CrossStitchUnit


@pytest.mark.parametrize("channels", [4, 1])
@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (2, 4)])
def test_unit_gives_the_sum_over_the_tasks_channel_by_channel(shape, channels):
    unit = CrossStitchUnit(3, channels, self_weight=0.9)
    unit.alpha.data = torch.randn_like(unit.alpha)
    features = [torch.randn(shape) for _ in range(3)]
    mixed = unit(features)
    for task in range(3):
        for channel in range(4):
            expected = sum(
                unit.alpha[task, other, channel if channels > 1 else 0] * features[other][:, channel]
                for other in range(3)
            )
            torch.testing.assert_close(mixed[task][:, channel], expected)


def test_weights_start_with_self_weight_on_the_diagonal_and_the_rest_spread():
    unit = CrossStitchUnit(3, 2, self_weight=0.8)
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    torch.testing.assert_close(unit.alpha, expected.unsqueeze(-1).expand(3, 3, 2))


def test_unit_of_one_task_passes_its_features_on():
    features = torch.randn(2, 4)
    (mixed,) = CrossStitchUnit(1, 4, self_weight=0.3)([features])
    assert torch.equal(mixed, features)


@pytest.mark.parametrize("granularity", ["channel", "layer"])
def test_granularity_sets_the_number_of_weights(mlp, three_tasks, granularity):
    model = CrossStitch(three_tasks, mlp.make, granularity=granularity)
    counts = [12, 8] if granularity == "channel" else [1, 1]
    assert [tuple(unit.alpha.shape) for unit in model.units] == [(3, 3, count) for count in counts]


def test_features_are_mixed_after_each_stage(mlp, three_tasks, make_inputs):
    model = CrossStitch(three_tasks, mlp.make)
    for unit in model.units:
        unit.alpha.data = torch.randn_like(unit.alpha)
    inputs = make_inputs(mlp)
    first = [model.backbones[task].stages[0](inputs) for task in three_tasks]
    mixed = [sum(model.units[0].alpha[task, other] * first[other] for other in range(3)) for task in range(3)]
    second = [model.backbones[task].stages[1](mixed[index]) for index, task in enumerate(three_tasks)]
    features = sum(model.units[1].alpha[2, other] * second[other] for other in range(3))
    torch.testing.assert_close(model(inputs).predictions["size"], model.heads["size"](features))


def test_networks_with_a_self_weight_of_one_are_independent(mlp, tasks, make_inputs):
    model, inputs = CrossStitch(tasks, mlp.make, self_weight=1.0), make_inputs(mlp)
    for task in tasks:
        torch.testing.assert_close(model(inputs).predictions[task], model.heads[task](model.backbones[task](inputs)))


def test_backbones_start_from_different_weights(mlp, tasks):
    backbones = CrossStitch(tasks, mlp.make).backbones
    assert not torch.equal(next(backbones["kind"].parameters()), next(backbones["place"].parameters()))


def test_units_have_their_own_learning_rate(mlp, tasks):
    groups = {group.name: group for group in CrossStitch(tasks, mlp.make, unit_lr_scale=7.0).parameter_groups()}
    assert {name: group.lr_scale for name, group in groups.items()} == {
        "shared": 1.0,
        "stitch": 7.0,
        "kind": 1.0,
        "place": 1.0,
    }
    assert [parameter.shape[:2] for parameter in groups["stitch"].parameters] == [(2, 2), (2, 2)]


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
        CrossStitch(tasks, mlp.make, **{argument: wrong})
