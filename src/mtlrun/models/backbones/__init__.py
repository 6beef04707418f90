"""Backbones: from an input to features, a vector or a map, stage by stage."""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.models.backbones.base import Backbone as Backbone
    from mtlrun.models.backbones.base import BackboneFactory as BackboneFactory
    from mtlrun.models.backbones.base import Shape as Shape
    from mtlrun.models.backbones.base import StageCache as StageCache
    from mtlrun.models.backbones.convnext import ConvNeXt as ConvNeXt
    from mtlrun.models.backbones.lenet import LeNet as LeNet
    from mtlrun.models.backbones.mlp import MLP as MLP
    from mtlrun.models.backbones.mobilenet import MobileNet as MobileNet
    from mtlrun.models.backbones.resnet import ResNet as ResNet
    from mtlrun.models.backbones.segnet import SegNet as SegNet
    from mtlrun.models.backbones.vit import ViT as ViT
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
