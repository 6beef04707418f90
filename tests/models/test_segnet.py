"""SegNet, and the width of the small backbones."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d, max_unpool2d

from mtlrun.models import CrossStitch, HardSharing
from mtlrun.models.backbones import MLP, LeNet, SegNet
from mtlrun.models.backbones.segnet import unpool
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones

TINY = partial(SegNet, channels=[4, 6, 5], convolutions=[1, 2, 1])


def test_stages_have_the_channels_and_sizes_of_the_paper():
    shapes = SegNet((3, 32, 64)).stage_shapes
    assert [shape[0] for shape in shapes] == [64, 128, 256, 512, 512, 512, 256, 128, 64, 64]
    assert [shape[1] for shape in shapes] == [16, 8, 4, 2, 1, 2, 4, 8, 16, 32]
    assert [shape[2] for shape in shapes] == [32, 16, 8, 4, 2, 4, 8, 16, 32, 64]


def test_each_block_has_its_convolutions_in_the_encoder_and_in_the_decoder():
    network = SegNet((3, 32, 32), width=1 / 64)
    counts = [sum(isinstance(layer, nn.Conv2d) for layer in stage) for stage in network.stages]
    assert counts == [2, 2, 3, 3, 3, 3, 3, 3, 2, 2]
    for stage in network.stages:
        assert [type(layer) for layer in stage] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * (len(stage) // 3)
    # the last convolution of a decoder block changes the channels
    assert [(layer.in_channels, layer.out_channels) for layer in network.stages[7][::3]] == [(4, 4), (4, 4), (4, 2)]


def test_first_weights_are_those_of_he_et_al():
    weight = SegNet((3, 4, 4), channels=[64, 64], convolutions=[2, 2]).stages[0][3].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def plain(*layers):
    """Return a network of two stages with these in place of its convolutions."""
    network = SegNet((1, 4, 4), channels=[1], convolutions=[1])
    for index, layer in enumerate(layers):
        network.stages[index] = layer
    return network


def test_maxima_go_back_to_their_places():
    image = torch.tensor([[1.0, 9, 2, 3], [4, 5, 8, 6], [0, 1, 2, 0], [7, 3, 1, 4]])
    expected = torch.tensor([[0.0, 9, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0], [7, 0, 0, 4]])
    network = plain(nn.Identity(), nn.Identity())
    assert torch.equal(network(image[None, None])[0, 0], expected)
    cache = {}
    pooled = network.stage(0, image[None, None], cache)
    assert torch.equal(pooled[0, 0], torch.tensor([[9.0, 8], [7, 4]]))
    # what an architecture makes of the features goes to the places of the old ones
    assert torch.equal(network.stage(1, 10 * pooled - 1, cache)[0, 0], (10 * expected - 1) * (expected > 0))


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 3)])
def test_unpooling_is_that_of_torch(size):
    maps = torch.randn(2, 3, *size)
    pooled, places = max_pool2d(maps, 2, ceil_mode=True, return_indices=True)
    changed = torch.randn_like(pooled).requires_grad_()
    found = unpool(changed, places, size)
    assert torch.equal(found, max_unpool2d(changed, places, 2, output_size=size))
    assert torch.equal(torch.autograd.grad(found.sum(), changed)[0], torch.ones_like(changed))


def test_unpooling_refuses_features_of_another_shape():
    with pytest.raises(RuntimeError, match="shape"):
        unpool(torch.randn(4, 3, 2, 2), torch.zeros(2, 3, 2, 2, dtype=torch.long), (4, 4))


def test_network_is_the_composition_of_poolings_and_their_inverses():
    network, features = TINY((2, 11, 14)).eval(), torch.randn(3, 2, 11, 14)
    expected, sizes, places = features, [], []
    for stage in network.stages[:3]:
        expected = stage(expected)
        sizes.append(expected.shape[2:])
        expected, indices = max_pool2d(expected, 2, ceil_mode=True, return_indices=True)
        places.append(indices)
    for stage in network.stages[3:]:
        expected = stage(max_unpool2d(expected, places.pop(), 2, output_size=sizes.pop()))
    torch.testing.assert_close(network(features), expected)


@pytest.mark.parametrize("size", [(8, 8), (11, 14), (9, 3), (2, 2), (1, 1)])
def test_output_has_the_size_of_the_input_for_every_size(size):
    network = TINY((1, *size))
    assert network.feature_shape == (4, *size)
    network(torch.randn(3, 1, *size)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_deterministic_algorithms_can_be_asked_for():
    network = TINY((1, 6, 6))
    torch.use_deterministic_algorithms(True)
    try:
        network(torch.randn(2, 1, 6, 6)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_parallel_networks_keep_their_own_pooling_places():
    networks, inputs = ParallelBackbones(["a", "b"], partial(TINY, (1, 8, 8))), torch.randn(2, 1, 8, 8)
    found = networks(inputs, lambda index, features: features)
    for features, network in zip(found, networks.values(), strict=True):
        assert torch.equal(features, network(inputs))
    caches = [{}, {}]
    for network, cache in zip(networks.values(), caches, strict=True):
        network.run(inputs, cache)
    assert not torch.equal(caches[0]["indices_0"], caches[1]["indices_0"])  # else the above shows nothing


def test_a_decoder_stage_without_its_encoder_is_named():
    network = TINY((1, 8, 8))
    with pytest.raises(RuntimeError, match="segnet: stage 4 needs what stage 1 left in the cache of the same forward"):
        network.run(torch.randn(2, 5, 2, 2), {}, start=4)


@pytest.mark.parametrize("split", [None, 1, 3, 5])
def test_a_trunk_may_split_within_the_encoder_or_the_decoder(dense_tasks, split):
    model = HardSharing(dense_tasks, partial(TINY, (1, 8, 10)), shared_stages=split)
    inputs = torch.randn(2, 1, 8, 10)
    predictions = model(inputs).predictions
    assert {task: tuple(found.shape) for task, found in predictions.items()} == {
        "heat": (2, 2, 8, 10),
        "flow": (2, 1, 8, 10),
        "place": (2, 2),
    }
    for task, prediction in predictions.items():
        (-prediction.sum()).backward(retain_graph=True)
        assert all(parameter.grad is not None for parameter in model.task_parameters()[task])


def test_mixed_features_reach_the_decoder(dense_tasks):
    model = CrossStitch(dense_tasks, partial(TINY, (1, 8, 10))).eval()
    inputs = torch.randn(2, 1, 8, 10)
    before = model(inputs).predictions["heat"]
    model.units[2].alpha.data[0, 1:] = 1.0  # after the last stage of the encoder
    assert not torch.allclose(model(inputs).predictions["heat"], before)


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (partial(MLP, (2, 3), hidden=[10, 7]), {0.5: (5, 4), 1.0: (10, 7), 1.3: (13, 9), 0.01: (1, 1)}),
        (
            partial(LeNet, (1, 16, 16), channels=(10, 20), features=50),
            {0.5: (5, 10, 25), 1.0: (10, 20, 50), 2.0: (20, 40, 100), 0.01: (1, 1, 1)},
        ),
        (partial(TINY, (1, 8, 8)), {1.0: (4, 6, 5, 6, 4, 4), 1.5: (6, 9, 8, 9, 6, 6), 0.01: (1,) * 6}),
    ],
)
def test_width_is_a_factor_on_all_hidden_sizes(make, sizes):
    assert {width: make(width=width).stage_channels for width in sizes} == sizes


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("backbone", [MLP, LeNet, SegNet])
def test_a_width_that_is_no_factor_is_refused(backbone, width):
    with pytest.raises(ValueError, match=f"width must be > 0(and finite| )*, found {width}"):
        backbone((1, 16, 16), width=width)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"input_shape": (28, 28)},
            r"segnet needs images \(channels, height, width\), found inputs of shape \(28",
        ),
        ({"channels": []}, r"channels must list one or more numbers >= 1, found \[\]"),
        ({"channels": [4, 0]}, r"channels\[1\] must be >= 1, found 0"),
        (
            {"channels": [4, 4]},
            r"convolutions must list a number >= 1 for each of the 2 blocks in channels",
        ),
        ({"convolutions": [2, 2, 3, 3, 0]}, r"convolutions\[4\] must be >= 1, found 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegNet(**{"input_shape": (1, 16, 16)} | arguments)
