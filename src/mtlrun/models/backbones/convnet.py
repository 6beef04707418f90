"""A small convolutional network."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from mtlrun.config.bounds import Width, WidthFactor, checked
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.pretrained import check_images
from mtlrun.models.backbones.width import widened


class ConvNet(Backbone):
    """Blocks of two 3x3 convolutions with BatchNorm and ReLU, each block at half the size of the one before.

    A plain network in the manner of VGG (Simonyan & Kingma, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015) for small images that are not many. There is no dropout: BatchNorm and augmentation do its
    work. Each block is a stage, and returns maps; all but the first begin with a 2x2 max pooling.

    Args:
        input_shape: (channels, height, width), height and width 2^(number of blocks) or more, so that the last maps
            are 2 x 2 or larger.
        channels: of each block.
        width: factor on all channels, rounded.
    """

    @checked
    def __init__(
        self, input_shape: tuple[int, ...], channels: Sequence[Width] = (32, 64, 128, 256), width: WidthFactor = 1.0
    ) -> None:
        if not channels:
            raise ValueError("channels must list one or more numbers >= 1, found []")
        check_images(f"convnet with {len(channels)} blocks", input_shape, smallest=2 ** len(channels))
        sizes = [input_shape[0], *widened(channels, width)]
        stages = []
        for index, (before, after) in enumerate(pairwise(sizes)):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            for inputs in (before, after):
                convolution = nn.Conv2d(inputs, after, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            stages.append(nn.Sequential(*layers))
        super().__init__(stages, input_shape)
