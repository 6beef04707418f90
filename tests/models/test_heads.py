"""Heads for samples and for pixels."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from mtlrun.models import HardSharing
from mtlrun.models.heads import ASPPHead, ConvHead, DenseHead, MLPHead, UpsamplingHead
from mtlrun.tasks import Regression

SMALL_ASPP = partial(ASPPHead, rates=[1, 2], channels=6)
DENSE = [
    ConvHead,
    partial(ConvHead, hidden=[]),
    SMALL_ASPP,
    partial(UpsamplingHead, channels=[6, 4]),
    partial(UpsamplingHead, channels=[6, 4], upsampling="transposed"),
]


def kinds(head):
    return [type(layer) for layer in head.body]


def test_vectors_pass_through_the_layers_of_an_mlp_head_alone():
    assert [type(layer) for layer in MLPHead((4,), (2,), hidden=[3])] == [nn.Linear, nn.ReLU, nn.Linear]


def test_mlp_head_takes_the_mean_of_maps_first():
    head, maps = MLPHead((4, 3, 5), (2,), hidden=[6]), torch.randn(2, 4, 3, 5)
    weight1, bias1, weight2, bias2 = head.parameters()
    hidden = (maps.mean(dim=(2, 3)) @ weight1.T + bias1).clamp_min(0)
    torch.testing.assert_close(head(maps), hidden @ weight2.T + bias2)


@pytest.mark.parametrize("make", DENSE)
@pytest.mark.parametrize("size", [(5, 7), (10, 14), (1, 1), (24, 30), (13, 4)])
def test_dense_heads_give_maps_in_the_outputs_size(make, size):
    head = make((3, *size), (2, 10, 14))
    assert isinstance(head, DenseHead)
    prediction = head(torch.randn(2, 3, *size))
    assert prediction.shape == (2, 2, 10, 14)
    (-prediction.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("make", DENSE)
def test_dense_heads_may_give_any_real_number(make):
    prediction = make((3, 5, 5), (4, 10, 10))(torch.randn(8, 3, 5, 5))
    assert prediction.min() < 0 < prediction.max()


@pytest.mark.parametrize("make", DENSE)
def test_dense_heads_do_not_change_what_they_are_given(make):
    maps = torch.randn(2, 3, 4, 4)
    before = maps.clone()
    make((3, 4, 4), (2, 8, 8))(maps)
    assert torch.equal(maps, before)


def test_conv_head_without_hidden_layers_is_a_1x1_convolution_then_bilinear():
    head, maps = ConvHead((3, 4, 4), (2, 8, 8), hidden=[]), torch.randn(2, 3, 4, 4)
    weight, bias = head.parameters()
    at_each_pixel = torch.einsum("bchw,nc->bnhw", maps, weight[:, :, 0, 0]) + bias[:, None, None]
    torch.testing.assert_close(head(maps), interpolate(at_each_pixel, (8, 8), mode="bilinear"))


def test_conv_head_has_a_block_for_each_hidden_layer():
    head = ConvHead((3, 4, 4), (2, 8, 8), hidden=[5, 7])
    assert kinds(head) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.Conv2d]
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size[0]) for layer in head.body[::3]] == [
        (3, 5, 3), (5, 7, 3), (7, 2, 1)
    ]  # fmt: skip


def test_aspp_has_a_branch_for_each_rate_one_of_1x1_and_the_mean_of_the_image():
    head = SMALL_ASPP((3, 8, 8), (2, 16, 16)).eval()
    pyramid, maps = head.body[0], torch.randn(2, 3, 8, 8)
    single, *dilated, mean = pyramid.convs
    assert [branch[0].dilation for branch in dilated] == [(1, 1), (2, 2)]
    image = nn.Sequential(*list(mean)[1:])(maps.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, 8, 8)
    joined = torch.cat([single(maps), *(branch(maps) for branch in dilated), image], dim=1)
    assert joined.shape[1] == 4 * 6
    features = head.body[1:](pyramid.project(joined))
    torch.testing.assert_close(head(maps), interpolate(features, (16, 16), mode="bilinear"))


def test_aspp_starts_from_the_papers_rates_and_channels():
    pyramid = ASPPHead((3, 8, 8), (2, 16, 16)).body[0]
    assert [branch[0].dilation[0] for branch in pyramid.convs[1:-1]] == [12, 24, 36]
    assert {branch[0].out_channels for branch in pyramid.convs[:-1]} == {256}


def test_aspp_refuses_to_train_on_one_sample():
    head, maps = SMALL_ASPP((3, 8, 8), (2, 8, 8)), torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match="ASPPHead needs 2 or more samples in each training batch, found 1"):
        head(maps)
    assert head.eval()(maps).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("size", "blocks"),
    [((2, 3), [(4, 6), (8, 12), (13, 24)]), ((7, 12), [(13, 24)]), ((13, 24), []), ((13, 6), [(13, 12), (13, 24)])],
)
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_upsampling_doubles_the_size_up_to_the_outputs(size, blocks, upsampling):
    head = UpsamplingHead((3, *size), (2, 13, 24), channels=[8, 7, 6, 5], upsampling=upsampling)
    found = []
    for layer in head.body:
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, __, maps: found.append(tuple(maps.shape[1:])))
    head(torch.randn(2, 3, *size))
    assert found == [(channels, *block) for channels, block in zip([8, 7, 6, 5], blocks, strict=False)]


def test_upsampling_goes_the_rest_of_the_way_at_once_where_blocks_are_used_up():
    head, maps = UpsamplingHead((3, 2, 2), (2, 16, 16), channels=[5]), torch.randn(2, 3, 2, 2)
    head.eval()
    assert kinds(head)[1:] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    features = head.body[1:](interpolate(maps, (4, 4), mode="bilinear"))
    torch.testing.assert_close(head(maps), interpolate(features, (16, 16), mode="bilinear"))


def test_transposed_upsampling_has_the_papers_layers():
    head = UpsamplingHead((3, 4, 4), (2, 8, 8), channels=[5], upsampling="transposed").eval()
    convolution = head.body[0]
    assert (convolution.kernel_size, convolution.stride, convolution.bias) == ((4, 4), (2, 2), None)
    maps = torch.randn(2, 3, 4, 4)
    expected = head.body[-1](head.body[2:4](convolution(maps)))
    torch.testing.assert_close(head(maps), expected)


@pytest.mark.parametrize("head", [SMALL_ASPP, partial(UpsamplingHead, channels=[6])])
def test_a_dense_task_may_bring_its_own_head(maps, dense_tasks, make_inputs, head):
    dense_tasks["heat"].head = head
    model = HardSharing(dense_tasks, maps.make)
    assert isinstance(model.heads["heat"], head.func)
    assert isinstance(model.heads["flow"], ConvHead)
    assert isinstance(model.heads["place"], MLPHead)
    assert model(make_inputs(maps)).predictions["heat"].shape == (4, 2, 8, 10)


@pytest.mark.parametrize("make", [ConvHead, ASPPHead, UpsamplingHead])
def test_a_dense_head_refuses_vectors_and_tasks_of_whole_samples(make):
    name = make.__name__
    with pytest.raises(ValueError, match=f"{name} predicts at each pixel and needs feature maps, found vectors of 5 f"):
        make((5,), (2, 8, 8))
    with pytest.raises(ValueError, match=f"{name} predicts at each pixel, and the task wants 2 numbers for a whole sa"):
        make((5, 4, 4), (2,))


@pytest.mark.parametrize("feature_shape", [(5,), (5, 4, 4)])
def test_an_mlp_head_refuses_a_dense_task(feature_shape):
    with pytest.raises(ValueError, match=r"the task wants maps of shape \(2, 8, 8\); use mtlrun\.models\.heads"):
        MLPHead(feature_shape, (2, 8, 8))


def test_the_refusal_comes_before_training(mlp, maps, dense_tasks):
    with pytest.raises(ValueError, match="needs feature maps, found vectors of 8 features; use a backbone"):
        HardSharing(dense_tasks, mlp.make)
    with pytest.raises(ValueError, match="MLPHead gives numbers for a whole sample"):
        HardSharing({"heat": dense_tasks["heat"], "flow": type(dense_tasks["flow"])(1, head=MLPHead)}, maps.make)
    with pytest.raises(ValueError, match="ConvHead predicts at each pixel, and the task wants 2 numbers"):
        HardSharing({"place": Regression(2, head=ConvHead)}, maps.make)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(MLPHead, (4,), (2,), hidden=[3, 0]), r"hidden\[1\] must be >= 1, found 0"),
        (partial(ConvHead, (3, 4, 4), (2, 8, 8), hidden=[0]), r"hidden\[0\] must be >= 1, found 0"),
        (partial(ASPPHead, (3, 4, 4), (2, 8, 8), rates=[]), r"rates must list one or more rates .*>= 1, found \[\]"),
        (partial(ASPPHead, (3, 4, 4), (2, 8, 8), rates=[6, 0]), r"rates\[1\] must be >= 1, found 0"),
        (partial(ASPPHead, (3, 4, 4), (2, 8, 8), channels=0), "channels must be >= 1, found 0"),
        (partial(UpsamplingHead, (3, 4, 4), (2, 8, 8), channels=[]), r"channels must list .* >= 1, found \[\]"),
        (partial(UpsamplingHead, (3, 4, 4), (2, 8, 8), channels=[8, 0]), r"channels\[1\] must be >= 1, found 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
