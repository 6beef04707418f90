"""Backbones: from an input to features, a vector or a map, stage by stage."""

from mtlrun.models.backbones.base import Backbone, BackboneFactory, Memory, Shape
from mtlrun.models.backbones.lenet import LeNet
from mtlrun.models.backbones.mlp import MLP
from mtlrun.models.backbones.resnet import ResNet

__all__ = ["MLP", "Backbone", "BackboneFactory", "LeNet", "Memory", "ResNet", "Shape"]
