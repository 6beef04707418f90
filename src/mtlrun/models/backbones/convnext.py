"""ConvNeXt by torchvision as a backbone."""

from typing import Any, Literal

from torch import nn
from torchvision.models import convnext

from mtlrun.config.bounds import FractionBelowOne, Pixels, WidthFactor, checked
from mtlrun.config.checks import check_one_of
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.pretrained import check_images, check_pretrained, load_weights
from mtlrun.models.backbones.width import widened

Size = Literal["tiny", "small", "base"]
#: {size: (channels of the first stage, blocks in each stage, probability of dropping the last block)}
SIZES = {
    "tiny": (96, (3, 3, 9, 3), 0.1),
    "small": (96, (3, 3, 27, 3), 0.4),
    "base": (128, (3, 3, 27, 3), 0.5),
}


class ConvNeXt(Backbone):
    """ConvNeXt by torchvision: a convolutional network with the proportions of a vision transformer.

    Source: Liu et al., "A ConvNet for the 2020s" (CVPR 2022), table 9 for the sizes.
    Four stages, all of which return maps: the first begins with the patch embedding, each of the others with a
    convolution that halves the size. The LayerNorm after the pooling is part of torchvision's classifier and left out.

    Args:
        input_shape: (channels, height, width), height and width 8 * patch_size or more.
        size: `tiny`, `small` or `base`.
        patch_size: size and stride of the first convolution. Paper: 4; 2 or 1 for small images.
        stochastic_depth: probability, in training, of dropping the last block for a sample; it grows linearly from 0
            at the first block. None for torchvision's: .1 for `tiny`, .4 for `small`, .5 for `base`.
        width: factor on all channels, rounded.
        weights: pretrained weights, see `pretrained.read_weights`; None for random ones.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        size: Size = "tiny",
        patch_size: Pixels = 4,
        stochastic_depth: FractionBelowOne | None = None,
        width: WidthFactor = 1.0,
        weights: str | None = None,
    ) -> None:
        check_one_of("size", size, Size)
        narrowest, counts, probability = SIZES[size]
        channels = widened([narrowest * 2**index for index in range(4)], width)
        check_images(f"convnext with patch_size={patch_size}", input_shape, smallest=8 * patch_size)
        check_pretrained(weights, input_shape, patch_size=(patch_size, 4), width=(width, 1.0))
        settings = [
            convnext.CNBlockConfig(before, after, count)
            for before, after, count in zip(channels, [*channels[1:], None], counts, strict=True)
        ]
        network: Any = convnext.ConvNeXt(settings, probability if stochastic_depth is None else stochastic_depth)
        layers: nn.Sequential = network.features
        stem: Any = layers[0]
        stem[0] = nn.Conv2d(input_shape[0], channels[0], patch_size, stride=patch_size)
        nn.init.trunc_normal_(stem[0].weight, std=0.02)  # as torchvision initializes
        nn.init.zeros_(stem[0].bias)
        if weights is not None:
            load_weights(nn.ModuleDict({"features": layers}), weights, f"convnext_{size}", without="classifier.")
        # Patches or downsampling, then blocks, four times.
        super().__init__([nn.Sequential(*layers[index : index + 2]) for index in range(0, 8, 2)], input_shape)
