"""What a backbone is: a chain of stages that turns one input into features, a vector or a map."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

#: What stages of one forward pass leave for later ones of the same network, such as the places of pooled maxima.
StageCache = dict[str, Tensor]
#: (channels,) for vectors, (channels, height, width) for maps.
Shape = tuple[int, ...]


class Backbone(nn.Module):
    """A chain of stages. Architectures that couple networks do so after each stage.

    Args:
        stages: modules applied one after the other; each gives vectors [batch, channels] or maps [batch, channels,
            height, width].
        input_shape: shape of one input, as the dataset tells it.
    """

    def __init__(self, stages: Sequence[nn.Module], input_shape: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.input_shape: Shape = tuple(input_shape)

    def example(self) -> Tensor:
        """Return a batch of one input, to find out shapes with; override where inputs are not real numbers."""
        return torch.zeros(1, *self.input_shape)

    @cached_property
    def stage_shapes(self) -> tuple[Shape, ...]:
        """The shape of one sample's features after each stage."""
        was_training = self.training
        cache: StageCache = {}
        found = []
        self.eval()
        with torch.no_grad():
            features = self.example()
            for index in range(len(self.stages)):
                features = self.stage(index, features, cache)
                found.append(tuple(features.shape[1:]))
        self.train(was_training)
        return tuple(found)

    @property
    def feature_shape(self) -> Shape:
        """The shape of what the last stage gives for one sample."""
        return self.stage_shapes[-1]

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Size of dimension 1 of each stage's output."""
        return tuple(shape[0] for shape in self.stage_shapes)

    def stage(self, index: int, features: Tensor, cache: StageCache) -> Tensor:
        """Apply one stage.

        Args:
            index: which.
            features: what the stage before it gave, or what an architecture made of it; the inputs for the first.
            cache: of this forward pass through this network; empty before the first stage.
        """
        found: Tensor = self.stages[index](features)
        return found

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [batch, *input_shape] to [batch, *feature_shape]."""
        return self.run(inputs, {})

    def run(self, features: Tensor, cache: StageCache, start: int = 0, stop: int | None = None) -> Tensor:
        """Apply the stages from `start` up to `stop`, which is left out."""
        for index in range(len(self.stages))[start:stop]:
            features = self.stage(index, features, cache)
        return features


class BackboneFactory(Protocol):
    """Makes one more backbone of the configured kind, with fresh weights."""

    def __call__(self) -> Backbone: ...
