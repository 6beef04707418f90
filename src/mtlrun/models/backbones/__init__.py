"""Backbones: from an input to features, a vector or a map, stage by stage."""

from mtlrun.models.backbones.base import Backbone, BackboneFactory, Shape, StageCache
from mtlrun.models.backbones.convnext import ConvNeXt
from mtlrun.models.backbones.lenet import LeNet
from mtlrun.models.backbones.mlp import MLP
from mtlrun.models.backbones.mobilenet import MobileNet
from mtlrun.models.backbones.resnet import ResNet
from mtlrun.models.backbones.segnet import SegNet
from mtlrun.models.backbones.vit import ViT

__all__ = [
    "MLP",
    "Backbone",
    "BackboneFactory",
    "ConvNeXt",
    "LeNet",
    "MobileNet",
    "ResNet",
    "SegNet",
    "Shape",
    "StageCache",
    "ViT",
]
