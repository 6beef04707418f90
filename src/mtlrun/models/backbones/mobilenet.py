"""MobileNetV3 by torchvision as a backbone."""

from typing import Any, Literal

from torch import nn
from torchvision.models import get_model

from mtlrun.config.bounds import WidthFactor, checked
from mtlrun.config.checks import check_one_of
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.pretrained import check_images, check_pretrained, load_weights
from mtlrun.models.backbones.width import widened

Size = Literal["small", "large"]
Stem = Literal["imagenet", "small"]


class MobileNet(Backbone):
    """MobileNetV3 by torchvision: depthwise separable convolutions, which need little memory and time.

    Source: Howard et al., "Searching for MobileNetV3" (ICCV 2019), tables 1 and 2, up to the pooling.
    Five stages, all of which return maps: each begins where the size is halved, and the last ends with the 1x1
    convolution before the pooling.
    BatchNorm's running statistics average over some hundred steps (momentum .01, as in the paper), so evaluation is
    not meaningful after fewer.

    Args:
        input_shape: (channels, height, width).
        size: `small` or `large`.
        stem: `imagenet` (first convolution of stride 2) or `small` (of stride 1, for images of about 32 x 32).
        width: factor on all channels, rounded to multiples of 8, as in the paper.
        weights: pretrained weights, see `pretrained.read_weights`; None for random ones.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        size: Size = "small",
        stem: Stem = "imagenet",
        width: WidthFactor = 1.0,
        weights: str | None = None,
    ) -> None:
        check_images("mobilenet", input_shape)
        check_one_of("size", size, Size)
        check_one_of("stem", stem, Stem)
        widened([], width)  # checks width
        check_pretrained(weights, input_shape, stem=(stem, "imagenet"), width=(width, 1.0))
        model = f"mobilenet_v3_{size}"
        network: Any = get_model(model, weights=None, width_mult=width)
        blocks: nn.Sequential = network.features
        first: Any = blocks[0]
        stride = 2 if stem == "imagenet" else 1
        first[0] = nn.Conv2d(input_shape[0], first[0].out_channels, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(first[0].weight, mode="fan_out")  # as torchvision initializes
        if weights is not None:
            load_weights(nn.ModuleDict({"features": blocks}), weights, model, without="classifier.")
        stages: list[nn.Sequential] = [nn.Sequential(first)]
        for block in blocks[1:]:
            if _halves(block):
                stages.append(nn.Sequential())
            stages[-1].append(block)
        super().__init__(stages, input_shape)


def _halves(block: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.stride != (1, 1) for module in block.modules())
