"""ResNets made of torchvision's blocks."""

from collections.abc import Iterable
from typing import Literal

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from mtlrun.config.bounds import WidthFactor, checked
from mtlrun.config.checks import check_one_of
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.pretrained import check_images, check_pretrained, load_weights
from mtlrun.models.backbones.width import widened

Depth = Literal[18, 34, 50]
Stem = Literal["imagenet", "small"]
#: {depth: (kind of block, blocks in each of the four residual layers)}
BLOCKS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3))}


class ResNet(Backbone):
    """ResNet-18, -34 or -50, with torchvision's structure and initialization.

    Source: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), table 1; as torchvision does, the
    blocks of ResNet-50 halve the size in their 3x3 convolution. Dilation: Yu et al., "Dilated Residual Networks"
    (CVPR 2017), without the layers that they add to remove gridding artifacts.
    Five stages, all of which return maps: the stem, then the four residual layers.

    Args:
        input_shape: (channels, height, width).
        depth: 18, 34 or 50.
        stem: `imagenet` (7x7 convolution of stride 2, then pooling) or `small` (3x3 convolution of stride 1, no
            pooling, as is usual on images of 32 x 32).
        dilated: the last two residual layers keep the size of the second: their strides become 1, and the convolutions
            after a removed stride are dilated instead, by 2 and 4, so that the same weights see the same positions.
        width: factor on all channels, rounded.
        weights: pretrained weights, see `pretrained.read_weights`; None for random ones.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        depth: Depth = 18,
        stem: Stem = "imagenet",
        dilated: bool = False,
        width: WidthFactor = 1.0,
        weights: str | None = None,
    ) -> None:
        check_images("resnet", input_shape)
        check_one_of("depth", depth, Depth)
        check_one_of("stem", stem, Stem)
        channels, *inner_channels = widened([64, 64, 128, 256, 512], width)
        check_pretrained(weights, input_shape, stem=(stem, "imagenet"), width=(width, 1.0))
        block, counts = BLOCKS[depth]
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        network = nn.ModuleDict(  # torchvision's names
            {
                "conv1": nn.Conv2d(input_shape[0], channels, kernel, stride=stride, padding=kernel // 2, bias=False),
                "bn1": nn.BatchNorm2d(channels),
            }
        )
        for index, (inner, count) in enumerate(zip(inner_channels, counts, strict=True)):
            network[f"layer{index + 1}"] = _layer(block, channels, inner, count, stride=1 if index == 0 else 2)
            channels = inner * block.expansion
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_weights(network, weights, f"resnet{depth}", without="fc.")
        if dilated:
            _dilate(network["layer3"].modules(), before=1, after=2)
            _dilate(network["layer4"].modules(), before=2, after=4)
        entry: list[nn.Module] = [network["conv1"], network["bn1"], nn.ReLU(inplace=True)]
        if stem == "imagenet":
            entry.append(nn.MaxPool2d(3, stride=2, padding=1))
        super().__init__([nn.Sequential(*entry), *(network[f"layer{index}"] for index in (1, 2, 3, 4))], input_shape)


def _layer(
    block: type[BasicBlock | Bottleneck], in_channels: int, inner_channels: int, count: int, stride: int
) -> nn.Sequential:
    """Return a residual layer of `count` blocks; the first changes size and channels."""
    out_channels = inner_channels * block.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    first = block(in_channels, inner_channels, stride, shortcut)
    return nn.Sequential(first, *(block(out_channels, inner_channels) for _ in range(count - 1)))


def _dilate(modules: Iterable[nn.Module], before: int, after: int) -> None:
    """Remove the stride of a residual layer and dilate its convolutions instead.

    Args:
        modules: of the layer.
        before: dilation of the convolution that had the stride; it makes up for strides removed in earlier layers.
        after: dilation of all other convolutions.
    """
    for module in modules:
        if isinstance(module, nn.Conv2d):
            dilation = before if module.stride != (1, 1) else after
            module.stride = (1, 1)
            if module.kernel_size != (1, 1):
                module.dilation = module.padding = (dilation, dilation)
