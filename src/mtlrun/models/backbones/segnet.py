"""SegNet: an encoder and a decoder for predictions at each pixel."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mtlrun.config.bounds import Parts, Width, WidthFactor, checked
from mtlrun.config.shortening import shorten
from mtlrun.models.backbones.base import Backbone, StageCache
from mtlrun.models.backbones.pretrained import check_images
from mtlrun.models.backbones.width import widened


class SegNet(Backbone):
    """SegNet: encoder stages of convolutions and max pooling, and as many decoder stages that unpool and convolve.

    Source: Badrinarayanan, Kendall & Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
    Segmentation" (TPAMI 2017), section 3. A decoder stage puts each value where the maximum was in the encoder stage of
    the same size, zeros elsewhere, and returns as many channels as that stage received; the last stage returns
    `channels[0]` in the size of the input. Convolutions are 3x3 with BatchNorm and ReLU, and without a bias, which
    BatchNorm would cancel. Pooling includes the border of odd sizes, as in the paper's code, so that every size works;
    pooling of maps of one pixel changes nothing. Weights are initialized as in He et al. (ICCV 2015).

    Args:
        input_shape: (channels, height, width).
        channels: of each encoder stage. Paper: 64, 128, 256, 512, 512, those of VGG-16.
        convolutions: number in each encoder stage, and in the decoder stage of the same size. Paper: 2, 2, 3, 3, 3.
        width: factor on all channels, rounded.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        channels: Sequence[Width] = (64, 128, 256, 512, 512),
        convolutions: Sequence[Parts] = (2, 2, 3, 3, 3),
        width: WidthFactor = 1.0,
    ) -> None:
        check_images("segnet", input_shape)
        if not channels:
            raise ValueError("channels must list one or more numbers >= 1, found []")
        if len(convolutions) != len(channels):
            raise ValueError(
                f"convolutions must list a number >= 1 for each of the {len(channels)} blocks in channels, "
                f"found {shorten(convolutions)}"
            )
        widths = [input_shape[0], *widened(channels, width)]
        ends = [widths[1], *widths[1:-1]]  # the last stage does not reduce to the channels of the input
        encoder, decoder = [], []
        for before, after, end, count in zip(widths[:-1], widths[1:], ends, convolutions, strict=True):
            encoder.append(_block([before, *[after] * count]))
            decoder.append(_block([*[after] * count, end]))
        super().__init__([*encoder, *reversed(decoder)], input_shape)
        self.depth = len(channels)

    def stage(self, index: int, features: Tensor, cache: StageCache) -> Tensor:
        """Apply one stage; encoder stages store the indices of their maxima in `cache`, decoder stages read them."""
        if index < self.depth:
            features = self.stages[index](features)
            pooled: Tensor
            pooled, cache[f"indices_{index}"] = max_pool2d(features, 2, ceil_mode=True, return_indices=True)
            return pooled
        partner = 2 * self.depth - 1 - index
        if f"indices_{partner}" not in cache:
            raise RuntimeError(
                f"segnet: stage {index} needs what stage {partner} left in the cache of the same forward pass; "
                "give all stages of one network one cache"
            )
        features = unpool(features, cache[f"indices_{partner}"], self.size_before(partner))
        return super().stage(index, features, cache)

    def size_before(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the maps that this encoder stage pools."""
        height, width = (-(-side // 2**index) for side in self.input_shape[1:])
        return height, width


def unpool(features: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps of zeros with each value at its index: max_unpool2d for indices that do not coincide.

    PyTorch's function allows for indices that do, and refuses to run if only deterministic algorithms are allowed.

    Args:
        features: [batch, channels, ...].
        indices: positions in a flattened map of the result, in the shape of `features`.
        size: height and width of the result.
    """
    maps = features.new_zeros(*features.shape[:2], size[0] * size[1])
    return maps.scatter(2, indices.view_as(features).flatten(2), features.flatten(2)).view(*features.shape[:2], *size)


def _block(channels: Sequence[int]) -> nn.Sequential:
    """Return 3x3 convolutions with BatchNorm and ReLU, from each number of channels to the next."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
