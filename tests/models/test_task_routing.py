"""Task routing."""

import pytest
import torch
from torch import nn

from mtlrun.models import HardSharing, TaskRouting
from mtlrun.models.heads import MLPHead
from mtlrun.models.task_routing import Router, draw_masks


def draw(num_tasks, channels, sigma, seed=0):
    return draw_masks(num_tasks, channels, sigma, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("num_tasks", "channels"), [(1, 5), (2, 8), (3, 20), (5, 2), (4, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_no_channel_is_dead_and_no_task_without_channels(num_tasks, channels, sigma, seed):
    masks = draw(num_tasks, channels, sigma, seed)
    assert masks.shape == (num_tasks, channels)
    assert masks.any(dim=0).all()
    assert masks.any(dim=1).all()


def test_sigma_zero_gives_separate_parts_of_equal_size():
    masks = draw(3, 12, 0.0)
    assert torch.equal(masks.sum(dim=0), torch.ones(12, dtype=torch.long))
    assert masks.sum(dim=1).tolist() == [4, 4, 4]


def test_sigma_one_gives_all_channels_to_all_tasks():
    assert draw(3, 7, 1.0).all()


def test_each_task_draws_a_fraction_sigma_of_the_channels_independently():
    masks = draw(20, 100, 0.3)  # none of the channels is left over by all of so many tasks
    assert masks.sum(dim=1).tolist() == [30] * 20
    shared = (masks.float() @ masks.float().T)[~torch.eye(20, dtype=torch.bool)]
    assert abs(shared.mean() - 9) < 1  # of two tasks that draw .3 each
    assert shared.std() > 0


def test_one_task_has_all_channels():
    assert draw(1, 6, 0.5).all()


def test_router_sets_other_channels_to_zero():
    router = Router(torch.tensor([[True, False, True], [False, True, True]]))
    features = torch.ones(2, 3, 1, 2)
    assert router(0, features)[:, :, 0, 0].tolist() == [[1, 0, 1], [1, 0, 1]]
    assert router(1, features)[1, :, 0, 1].tolist() == [0, 1, 1]
    assert router(1, features[:, :, 0, 0])[0].tolist() == [0, 1, 1]


def test_masks_follow_their_seed_and_not_that_of_the_run(mlp, tasks):
    def masks(run_seed, mask_seed):
        torch.manual_seed(run_seed)
        model = TaskRouting(tasks, mlp.make, mask_seed=mask_seed)
        return torch.cat([router.masks for router in model.routers], dim=1)

    assert torch.equal(masks(0, 5), masks(1, 5))
    assert not torch.equal(masks(0, 5), masks(0, 6))


def test_masks_are_a_part_of_the_state_and_leave_the_random_stream_alone(mlp, tasks):
    model = TaskRouting(tasks, mlp.make)
    assert [tuple(value.shape) for key, value in model.state_dict().items() if "masks" in key] == [(2, 12), (2, 8)]
    torch.manual_seed(0)
    HardSharing(tasks, mlp.make)
    expected = torch.rand(1)
    torch.manual_seed(0)
    TaskRouting(tasks, mlp.make)
    assert torch.equal(torch.rand(1), expected)


def test_features_are_masked_after_each_stage(maps, three_tasks, make_inputs):
    model, inputs = TaskRouting(three_tasks, maps.make), make_inputs(maps)
    network = model.trunk.network
    expected = {}
    for number, task in enumerate(three_tasks):
        features = inputs
        for stage, router in zip(network.stages, model.routers, strict=True):
            features = stage(features) * router.masks[number][None, :, None, None]
        expected[task] = model.heads[task](features)
    for task, prediction in model(inputs).predictions.items():
        torch.testing.assert_close(prediction, expected[task])


def test_a_task_trains_the_filters_that_it_uses_and_no_others(mlp, tasks, make_inputs):
    model = TaskRouting(tasks, mlp.make, sigma=0.0)
    first, second = (stage[-2] for stage in model.trunk.network.stages)
    with torch.no_grad():
        for layer in (first, second):
            layer.bias.fill_(10.0)  # all units are alive
    model(make_inputs(mlp)).predictions["place"].square().sum().backward()
    for layer, router in zip((first, second), model.routers, strict=True):
        assert torch.equal(layer.weight.grad.abs().sum(dim=1) > 0, router.masks[1])


def test_the_first_stage_runs_once_and_the_others_once_per_task(maps, three_tasks, make_inputs):
    model = TaskRouting(three_tasks, maps.make)
    calls = []
    for number, stage in enumerate(model.trunk.network.stages):
        stage.register_forward_hook(lambda *_, number=number: calls.append(number))
    model(make_inputs(maps))
    assert sorted(calls) == [0, 1, 1, 1, 2, 2, 2]


def test_sigma_one_is_hard_sharing(maps, tasks, make_inputs):
    torch.manual_seed(0)
    routed = TaskRouting(tasks, maps.make, sigma=1.0)
    torch.manual_seed(0)
    hard = HardSharing(tasks, maps.make)
    inputs = make_inputs(maps)
    for _ in range(2):  # in training, then in evaluation, with the statistics that the training left
        for task, prediction in hard(inputs).predictions.items():
            torch.testing.assert_close(routed(inputs).predictions[task], prediction)
        routed.eval()
        hard.load_state_dict(hard.state_dict() | statistics_of(routed))
        hard.eval()


def statistics_of(routed):
    """Return the statistics that the first task's pass is normalized by, under the names of a hard-sharing model."""
    statistics = routed.trunk.statistics["kind"].by_name()
    common = {name: value for name, value in routed.trunk.network.named_buffers() if name.startswith("stages.0.")}
    return {f"trunk.{name}": value for name, value in (statistics | common).items()}


def test_one_task_alone_is_the_plain_network(backbone, tasks, make_inputs):
    model = TaskRouting({"place": tasks["place"]}, backbone.make)
    network = model.trunk.network
    plain = nn.Sequential(network, MLPHead(network.feature_shape, (2,)))
    plain[1].load_state_dict(model.heads["place"].state_dict())
    inputs = make_inputs(backbone)
    torch.testing.assert_close(model(inputs).predictions["place"], plain(inputs))


def test_each_task_has_its_own_batch_norm_statistics_after_the_first_stage(maps, tasks, make_inputs):
    model, inputs = TaskRouting(tasks, maps.make, sigma=0.0), make_inputs(maps)
    for _ in range(200):
        model(inputs)  # the statistics become those of this batch
    trained = model(inputs).predictions
    model.eval()
    for task, prediction in model(inputs).predictions.items():
        # The running variance is unbiased, that of a batch is not, which is why the two are only near.
        torch.testing.assert_close(prediction, trained[task], rtol=0.1, atol=0.05)
    kind, place = (model.trunk.statistics[task].by_name() for task in tasks)
    assert not torch.allclose(kind["stages.1.1.running_mean"], place["stages.1.1.running_mean"])


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [("sigma", -0.1, r"in \[0, 1\]"), ("sigma", 1.5, r"in \[0, 1\]"), ("mask_seed", -1, ">= 0")],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        TaskRouting(tasks, mlp.make, **{argument: wrong})
