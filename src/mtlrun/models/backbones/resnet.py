"""torchvision's ResNets as backbones."""

from typing import Any, Literal

from torch import nn
from torchvision.models import get_model

from mtlrun.models.backbones.base import Backbone


class ResNet(Backbone):
    """ResNet-18 of He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), by torchvision.

    Five stages, all of which give maps: the stem, then the four residual layers.

    Args:
        input_shape: (channels, height, width).
        depth: 18.
        stem: `imagenet` (7x7 convolution of stride 2, then pooling) or `small` (3x3 convolution of stride 1, no
            pooling, as is usual on images of 32 x 32).
    """

    def __init__(
        self, input_shape: tuple[int, ...], depth: Literal[18] = 18, stem: Literal["imagenet", "small"] = "imagenet"
    ) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"resnet needs images (channels, height, width), found inputs of shape {tuple(input_shape)}"
            )
        network: Any = get_model(f"resnet{depth}", weights=None)
        channels = network.conv1.out_channels
        if stem == "imagenet":
            first = nn.Conv2d(input_shape[0], channels, 7, stride=2, padding=3, bias=False)
        else:
            first = nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")  # as torchvision initialises
        entry: list[nn.Module] = [first, network.bn1, network.relu]
        if stem == "imagenet":
            entry.append(network.maxpool)
        stages = [nn.Sequential(*entry), network.layer1, network.layer2, network.layer3, network.layer4]
        super().__init__(stages, input_shape)
