"""The base class of backbones: a chain of stages from an input to features, a vector or a map."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from mtlrun.models.blocks.checkpointed import Checkpointed

#: Tensors that stages keep for later stages of the same network and forward pass, such as the indices of pooled maxima.
StageCache = dict[str, Tensor]
#: (channels,) for vectors, (channels, height, width) for maps.
Shape = tuple[int, ...]


class ColumnLike(Protocol):
    """The attributes of a column of the input that a network uses; see `mtlrun.datasets.InputColumn`."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Literal["number", "indicator", "category"]: ...

    @property
    def num_categories(self) -> int: ...

    def quantiles(self, num_bins: int | None) -> Sequence[float] | None: ...


class Backbone(Checkpointed):
    """Base class of backbones: a chain of stages, after each of which architectures may couple several networks.

    Args:
        stages: modules applied one after the other; each returns vectors [batch, channels] or maps [batch, channels,
            height, width].
        input_shape: shape of one input, as the dataset declares it.
    """

    def __init__(self, stages: Sequence[nn.Module], input_shape: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.input_shape: Shape = tuple(input_shape)

    def example(self) -> Tensor:
        """Return a batch of one input, for finding shapes by a dry run; override it if inputs are not real numbers."""
        return torch.zeros(1, *self.input_shape)

    def embed_inputs(self) -> nn.Module | None:
        """Return a new module from inputs to vectors [batch, size], for layers that are linear in the input, as gates.

        None if the inputs can be used as they are.
        """
        return None

    @cached_property
    def stage_shapes(self) -> tuple[Shape, ...]:
        """Shape of one sample's features after each stage."""
        was_training = self.training
        cache: StageCache = {}
        shapes = []
        self.eval()
        with torch.no_grad():
            features = self.example()
            for parameter in self.parameters():
                features = features.to(parameter.device)
                break
            for index in range(len(self.stages)):
                features = self.stage(index, features, cache)
                shapes.append(tuple(features.shape[1:]))
        self.train(was_training)
        return tuple(shapes)

    @property
    def feature_shape(self) -> Shape:
        """Shape of one sample's features after the last stage."""
        return self.stage_shapes[-1]

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Number of channels after each stage."""
        return tuple(shape[0] for shape in self.stage_shapes)

    def stage(self, index: int, features: Tensor, cache: StageCache) -> Tensor:
        """Apply one stage; for subclasses to override, and called by `run`.

        Args:
            index: of the stage, from 0.
            features: output of the stage before, possibly changed by the architecture; the inputs for stage 0.
            cache: of this forward pass through this network; empty before the first stage.
        """
        output: Tensor = self.stages[index](features)
        return output

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [batch, *input_shape] to [batch, *feature_shape]."""
        return self.run(inputs, {})

    def run(
        self,
        features: Tensor,
        cache: StageCache,
        start: int = 0,
        stop: int | None = None,
        cuts: list[Tensor | None] | None = None,
    ) -> Tensor:
        """Apply the stages from `start` up to, but not including, `stop`.

        Args:
            features: output of the stage before, or the inputs.
            cache: see `stage`.
            start, stop: indices of stages.
            cuts: gets the output of each of `links`, from which alone all later ones are computed; None where the next
                one changes it in place.

        Raises:
            RuntimeError: `cuts` are asked for, and a stage leaves features in the cache.
        """
        for index in range(len(self.stages))[start:stop]:
            if cuts is None:
                features = self.checkpointed(self.stage, index, features, cache)
                continue
            for link in self.links(index):
                before, version = features, features._version
                if link == [self.stages[index]]:
                    features = self.checkpointed(self.stage, index, features, cache)
                else:
                    features = self.checkpointed(_run_modules, link, features)
                if cuts and before._version != version:
                    cuts[-1] = None
                cuts.append(features)
            if any(kept.is_floating_point() for kept in cache.values()):
                raise RuntimeError(f"stages after stage {index} of {type(self).__name__} see more than its output")
        return features

    def links(self, index: int) -> list[list[nn.Module]]:
        """Return the modules of a stage in groups that follow one another, and may be run one by one.

        A group begins with a module that has a weight matrix or a kernel, since its input is kept for the backward pass
        in any case. Where a stage is more than a sequence of modules, it is one group by itself.
        """
        stage = self.stages[index]
        if type(self).stage is not Backbone.stage or type(stage) is not nn.Sequential:
            return [[stage]]
        links: list[list[nn.Module]] = [[]]
        for module in stage:
            if _has_weights(module) and any(map(_has_weights, links[-1])):
                links.append([])
            links[-1].append(module)
        return links


def _run_modules(modules: Sequence[nn.Module], features: Tensor) -> Tensor:
    for module in modules:
        features = module(features)
    return features


def _has_weights(module: nn.Module) -> bool:
    """Return True if a module has a weight matrix or a kernel."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


class BackboneFactory(Protocol):
    """A function that returns a new backbone of the configured kind, with new random weights."""

    def __call__(self) -> Backbone: ...
