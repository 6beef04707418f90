"""Heads for predictions at each pixel."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from mtlrun.config.bounds import Pixels, Width, checked
from mtlrun.models.blocks.checkpointed import Checkpointed
from mtlrun.models.blocks.layers import Resize, is_map, resize


class DenseHead(Checkpointed):
    """Base class of heads for predictions at each pixel; it resizes the result of `body` to the output's size.

    Args:
        feature_shape: (channels, height, width) of one sample's features; filled in by the model.
        output_shape: (n, height, width); filled in by the model.
    """

    def __init__(self, feature_shape: Sequence[int], output_shape: Sequence[int]) -> None:
        name = type(self).__name__
        if not is_map(feature_shape):
            raise ValueError(
                f"{name} predicts at each pixel and needs feature maps, found vectors of {feature_shape[0]} features; "
                "use a backbone whose last stage gives maps, such as resnet18 or segnet"
            )
        if len(output_shape) != 3:
            raise ValueError(
                f"{name} predicts at each pixel, and the task wants {output_shape[0]} numbers for a whole sample; "
                "use mtlrun.models.heads.MLPHead"
            )
        super().__init__()
        self.size = tuple(output_shape[1:])
        self.body: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        return resize(self.checkpointed(self.body, features), self.size)


class ConvHead(DenseHead):
    """A head of 3x3 convolutions with BatchNorm and ReLU, a 1x1 convolution and resizing to the output's size.

    Args:
        feature_shape, output_shape: see `DenseHead`.
        hidden: channels of the 3x3 convolutions; empty for the 1x1 convolution alone.
    """

    @checked
    def __init__(
        self, feature_shape: Sequence[int], output_shape: Sequence[int], hidden: Sequence[Width] = (64,)
    ) -> None:
        super().__init__(feature_shape, output_shape)
        channels = [feature_shape[0], *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += _convolution(before, after)
        self.body = nn.Sequential(*layers, nn.Conv2d(channels[-1], output_shape[0], 1))


class ASPPHead(DenseHead):
    """Atrous spatial pyramid pooling: dilated convolutions and the mean of the image in parallel, then concatenated.

    Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (DeepLabv3, arXiv 2017),
    section 3.3, by torchvision, which adds a dropout of .5 and a 3x3 convolution after the concatenation.
    The mean of the image is one value per sample and channel and passes through BatchNorm, so training needs batches
    of two samples or more.

    Args:
        feature_shape, output_shape: see `DenseHead`.
        rates: of dilation. The paper's, for features at 1/8 of the input's size; at 1/16 it uses half of them.
        channels: of each branch and of all later layers. Paper: 256.
    """

    @checked
    def __init__(
        self,
        feature_shape: Sequence[int],
        output_shape: Sequence[int],
        rates: Sequence[Pixels] = (12, 24, 36),
        channels: Width = 256,
    ) -> None:
        if not rates:
            raise ValueError("rates must list one or more rates of dilation >= 1, found []")
        from torchvision.models.segmentation.deeplabv3 import ASPP  # slow to import, and few models have such a head

        super().__init__(feature_shape, output_shape)
        self.body = nn.Sequential(
            ASPP(feature_shape[0], rates, channels),
            *_convolution(channels, channels),
            nn.Conv2d(channels, output_shape[0], 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        if self.training and len(features) == 1:
            raise ValueError(
                "ASPPHead needs 2 or more samples in each training batch, found 1: its BatchNorm sees one value per "
                "sample and channel; use another trainer.batch_size, or mtlrun.models.heads.ConvHead"
            )
        return super().forward(features)


class UpsamplingHead(DenseHead):
    """A decoder of blocks that double the size, each a 3x3 convolution with BatchNorm and ReLU, and a 1x1 convolution.

    Blocks beyond the output's size are left out; if there are too few blocks, the result is resized bilinearly.
    `transposed` is the decoder of Xiao, Wu & Wei, "Simple Baselines for Human Pose Estimation and Tracking" (ECCV
    2018), section 2, except for its channels (256 in each of three blocks) and its initialization.

    Args:
        feature_shape, output_shape: see `DenseHead`.
        channels: of each block. Default: those of the depth decoder of Godard et al., "Digging Into Self-Supervised
            Monocular Depth Estimation" (ICCV 2019), which begins at 1/32 of the size.
        upsampling: `bilinear`, before the 3x3 convolution; or `transposed`, a 4x4 transposed convolution in its place.
    """

    @checked
    def __init__(
        self,
        feature_shape: Sequence[int],
        output_shape: Sequence[int],
        channels: Sequence[Width] = (256, 128, 64, 32, 16),
        upsampling: Literal["bilinear", "transposed"] = "bilinear",
    ) -> None:
        if not channels:
            raise ValueError("channels must list one or more numbers >= 1, found []")
        super().__init__(feature_shape, output_shape)
        before, *size = feature_shape
        layers: list[nn.Module] = []
        for after in channels:
            if all(side >= target for side, target in zip(size, self.size, strict=True)):
                break
            size = [min(2 * side, target) for side, target in zip(size, self.size, strict=True)]
            layers += _doubling(before, after, size, upsampling)
            before = after
        self.body = nn.Sequential(*layers, nn.Conv2d(before, output_shape[0], 1))


def _doubling(before: int, after: int, size: Sequence[int], upsampling: str) -> list[nn.Module]:
    """Return a block whose output has this size: twice that of its input, or less to fit the head's output."""
    if upsampling == "bilinear":
        return [Resize(size), *_convolution(before, after)]
    convolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
    return [convolution, Resize(size), nn.BatchNorm2d(after), nn.ReLU()]


def _convolution(before: int, after: int) -> list[nn.Module]:
    """Return a 3x3 convolution with BatchNorm and ReLU."""
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
