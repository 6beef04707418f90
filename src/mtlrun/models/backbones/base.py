"""What a backbone is: a chain of stages that turns one input into one feature vector."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class Backbone(nn.Module):
    """A chain of stages. Architectures that couple networks do so after each stage.

    Args:
        stages: modules applied one after the other.
        stage_channels: size of dimension 1 of each stage's output.
    """

    def __init__(self, stages: Sequence[nn.Module], stage_channels: Sequence[int]) -> None:
        super().__init__()
        if len(stages) != len(stage_channels):
            raise ValueError(f"{len(stages)} stages need as many stage_channels, found {len(stage_channels)}")
        self.stages = nn.ModuleList(stages)
        self.stage_channels = tuple(stage_channels)

    @property
    def num_features(self) -> int:
        """Length of the feature vector that the last stage gives."""
        return self.stage_channels[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [batch, *input_shape] to [batch, num_features]."""
        features = inputs
        for stage in self.stages:
            features = stage(features)
        return features


class BackboneFactory(Protocol):
    """Makes one more backbone of the configured kind, with fresh random weights."""

    def __call__(self) -> Backbone: ...
