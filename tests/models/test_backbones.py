"""Backbones and heads."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from mtlrun.models.backbones import MLP, ConvNet, LeNet, ResNet
from mtlrun.models.blocks.layers import pool
from mtlrun.models.heads import MLPHead


@pytest.mark.parametrize(
    ("make", "input_shape", "channels"),
    [
        (partial(MLP, (2, 3), hidden=(7, 5, 4)), (2, 3), (7, 5, 4)),
        (partial(LeNet, (3, 28, 36)), (3, 28, 36), (10, 20, 50)),
        (partial(LeNet, (1, 16, 16), channels=(3, 4), features=6), (1, 16, 16), (3, 4, 6)),
        (partial(ConvNet, (1, 9, 13), channels=(3, 6, 5), width=2), (1, 9, 13), (6, 12, 10)),
        (partial(ResNet, (1, 32, 32)), (1, 32, 32), (64, 64, 128, 256, 512)),
        (partial(ResNet, (3, 8, 8), stem="small"), (3, 8, 8), (64, 64, 128, 256, 512)),
    ],
)
def test_stages_have_the_channels_that_are_declared(make, input_shape, channels):
    backbone = make().eval()
    features = torch.randn(2, *input_shape)
    found = []
    for stage in backbone.stages:
        features = stage(features)
        found.append(features.shape[1])
    assert tuple(found) == backbone.stage_channels == channels
    assert features.shape == (2, *backbone.feature_shape)


def test_backbone_applies_its_stages_in_order(backbone, make_inputs):
    network, features = backbone.make().eval(), make_inputs(backbone)
    expected = network(features)
    for stage in network.stages:
        features = stage(features)
    assert torch.equal(features, expected)


def test_computing_shapes_leaves_a_backbone_as_it_was():
    backbone, plain = ResNet((3, 8, 8), stem="small"), ResNet((3, 8, 8), stem="small")
    plain.load_state_dict(backbone.state_dict())
    state = torch.random.get_rng_state()
    assert backbone.stage_shapes[-1] == backbone.feature_shape == (512, 1, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert backbone.training
    for before, after in zip(plain.state_dict().values(), backbone.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_the_smallest_images_of_a_convnet_keep_maps_of_several_pixels():
    assert ConvNet((3, 16, 16)).stage_shapes == ((32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2))


def test_mlp_is_linear_and_relu_in_turn():
    backbone, inputs = MLP((2, 3), hidden=[5, 4]), torch.randn(3, 2, 3)
    (weight1, bias1, weight2, bias2) = backbone.parameters()
    hidden = (inputs.reshape(3, 6) @ weight1.T + bias1).clamp_min(0)
    torch.testing.assert_close(backbone(inputs), (hidden @ weight2.T + bias2).clamp_min(0))


def test_mlp_drops_after_each_layer_in_training_only():
    backbone, inputs = MLP((6,), hidden=[400, 400], dropout=0.5), torch.randn(1, 6)
    first = backbone.stages[0]
    kept = first.eval()(inputs)
    dropped = first.train()(inputs)
    active = kept > 0
    assert ((dropped == 0) | torch.isclose(dropped, 2 * kept)).all()
    assert (dropped[active] == 0).float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert not torch.equal(backbone.stages[1](kept), backbone.stages[1](kept))


def test_mlp_may_normalize_and_add_the_input_of_a_layer():
    torch.manual_seed(0)
    backbone, inputs = MLP((6,), hidden=[5, 5, 4, 4], norm="batch", activation="silu", residual=True), torch.randn(9, 6)
    (w1, b1, g1, s1), (w2, b2, g2, s2), (w3, b3, g3, s3), (w4, b4, g4, s4) = (
        list(stage.parameters()) for stage in backbone.stages
    )

    def layer(x, weight, bias, scale, shift):
        x = x @ weight.T + bias
        x = (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()
        return nn.functional.silu(x * scale + shift)

    x = layer(inputs, w1, b1, g1, s1)
    x = x + layer(x, w2, b2, g2, s2)
    x = layer(x, w3, b3, g3, s3)
    x = x + layer(x, w4, b4, g4, s4)
    torch.testing.assert_close(backbone(inputs), x)
    normalized = MLP((6,), hidden=[400], norm="layer", activation="leaky_relu").stages[0][1:3](inputs)
    torch.testing.assert_close(normalized.mean(dim=1), torch.zeros(9), atol=1e-5, rtol=0)


def test_lenet_drops_whole_channels_after_the_second_convolution():
    backbone = LeNet((1, 28, 28), channels=(4, 200), dropout=0.5)
    features = backbone.stages[0](torch.randn(1, 1, 28, 28))
    dropped = backbone.stages[1](features).flatten(2)
    whole = backbone.eval().stages[1](features).flatten(2)
    is_gone = (dropped == 0).all(dim=2)
    torch.testing.assert_close(dropped[~is_gone], 2 * whole[~is_gone])
    active = (whole > 0).any(dim=2)  # the others ReLU has silenced
    assert active.sum() > 100
    assert is_gone[active].float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_resnet_equals_torchvisions_on_the_same_weights():
    backbone = ResNet((3, 32, 32)).eval()
    network = resnet18()
    network.conv1, network.bn1 = backbone.stages[0][0], backbone.stages[0][1]
    network.layer1, network.layer2, network.layer3 = backbone.stages[1:4]
    network.layer4, network.fc = backbone.stages[4], nn.Identity()
    inputs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(pool(backbone(inputs)), network.eval()(inputs))


def test_small_stem_keeps_the_resolution():
    images = torch.randn(1, 3, 16, 16)
    assert ResNet((3, 16, 16), stem="small").eval().stages[0](images).shape == (1, 64, 16, 16)
    assert ResNet((3, 16, 16)).eval().stages[0](images).shape == (1, 64, 4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((4,), hidden=[]), r"hidden must list one or more widths >= 1, found \[\]"),
        (lambda: MLP((4,), hidden=[3, 0]), r"hidden\[1\] must be >= 1, found 0"),
        (lambda: MLP((4,), dropout=1.0), r"dropout must be in \[0, 1\), found 1\.0"),
        (lambda: LeNet((1, 28, 28), dropout=-0.1), r"dropout must be in \[0, 1\), found -0\.1"),
        (lambda: LeNet((1, 28, 28), channels=(0, 4)), r"channels\[0\] must be >= 1, found 0"),
        (lambda: LeNet((1, 28, 28), features=0), "features must be >= 1, found 0"),
        (lambda: LeNet((1, 28, 15)), r"images of 16 x 16 or more, found inputs of shape \(1, 28, 15\)"),
        (lambda: LeNet((28,)), r"images of 16 x 16 or more, found inputs of shape \(28,\)"),
        (lambda: ConvNet((3, 15, 64)), r"convnet with 4 blocks needs images of 16 x 16 or more, found .*\(3, 15, 64\)"),
        (lambda: ConvNet((3, 16, 16), channels=[]), r"channels must list one or more numbers >= 1, found \[\]"),
        (lambda: ResNet((28, 28)), r"needs images \(channels, height, width\), found inputs of shape \(28, 28\)"),
        (lambda: MLPHead((4,), (2,), hidden=[0]), r"hidden\[0\] must be >= 1, found 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_head_without_hidden_layers_is_linear():
    head, features = MLPHead((4,), (2,)), torch.randn(3, 4)
    weight, bias = head.parameters()
    torch.testing.assert_close(head(features), features @ weight.T + bias)


def test_head_with_hidden_layers_has_relu_between_them_and_none_at_the_end():
    head, features = MLPHead((4,), (50,), hidden=[6]), torch.randn(3, 4)
    weight1, bias1, weight2, bias2 = head.parameters()
    hidden = (features @ weight1.T + bias1).clamp_min(0)
    torch.testing.assert_close(head(features), hidden @ weight2.T + bias2)
    assert (head(features) < 0).any()
