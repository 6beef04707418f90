"""The LeNet variant that is usual on MultiMNIST."""

from torch import nn

from mtlrun.config.bounds import FractionBelowOne, Width, WidthFactor, checked
from mtlrun.models.backbones.base import Backbone
from mtlrun.models.backbones.width import widened


class LeNet(Backbone):
    """LeNet: conv 5x5 (10) - pool - conv 5x5 (20) - channel dropout - pool - linear (50), each with ReLU; three stages.

    Source: Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization" (NeurIPS 2018), supplement.

    Args:
        input_shape: (channels, height, width), height and width 16 or more.
        channels: output channels of the two convolutions.
        features: length of the feature vector.
        dropout: probability of dropping a channel after the second convolution, in [0, 1). The paper's is .5.
        width: factor on `channels` and `features`.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, ...],
        channels: tuple[Width, Width] = (10, 20),
        features: Width = 50,
        dropout: FractionBelowOne = 0.5,
        width: WidthFactor = 1.0,
    ) -> None:
        if len(input_shape) != 3 or min(input_shape[1:]) < 16:
            raise ValueError(f"lenet needs images of 16 x 16 or more, found inputs of shape {tuple(input_shape)}")
        first, second, features = widened([*channels, features], width)
        height, width = (((side - 4) // 2 - 4) // 2 for side in input_shape[1:])
        stages = [
            nn.Sequential(nn.Conv2d(input_shape[0], first, 5), nn.MaxPool2d(2), nn.ReLU()),
            nn.Sequential(nn.Conv2d(first, second, 5), nn.Dropout2d(dropout), nn.MaxPool2d(2), nn.ReLU()),
            nn.Sequential(nn.Flatten(), nn.Linear(second * height * width, features), nn.ReLU()),
        ]
        super().__init__(stages, input_shape)
