"""Backbones: networks from an input to features, a vector or a map, in stages.

Here: one backbone per file, the base class, and what those that use torchvision's networks have in common.
Not here: heads, and everything that depends on the task.

Contract: a backbone is a chain of stages, each of which returns vectors [batch, channels] or maps [batch, channels,
height, width]; shapes are found by a dry run. Architectures that couple backbones do so between stages, through
`stage(index, features, cache)`; the cache belongs to one forward pass and holds what later stages need from earlier
ones, such as SegNet's pooling indices. `width` scales all channels, so that `match_parameters=<model>` can make two
models equally large.
"""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.models.backbones.base import Backbone as Backbone
    from mtlrun.models.backbones.base import BackboneFactory as BackboneFactory
    from mtlrun.models.backbones.base import Shape as Shape
    from mtlrun.models.backbones.base import StageCache as StageCache
    from mtlrun.models.backbones.convnet import ConvNet as ConvNet
    from mtlrun.models.backbones.convnext import ConvNeXt as ConvNeXt
    from mtlrun.models.backbones.embedding_mlp import EmbeddingMLP as EmbeddingMLP
    from mtlrun.models.backbones.lenet import LeNet as LeNet
    from mtlrun.models.backbones.mlp import MLP as MLP
    from mtlrun.models.backbones.mobilenet import MobileNet as MobileNet
    from mtlrun.models.backbones.resnet import ResNet as ResNet
    from mtlrun.models.backbones.segnet import SegNet as SegNet
    from mtlrun.models.backbones.vit import ViT as ViT
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
