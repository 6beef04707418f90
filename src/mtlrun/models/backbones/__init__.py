"""Backbones: from an input to a feature vector, stage by stage."""

from mtlrun.models.backbones.base import Backbone, BackboneFactory
from mtlrun.models.backbones.lenet import LeNet
from mtlrun.models.backbones.mlp import MLP
from mtlrun.models.backbones.resnet import ResNet

__all__ = ["MLP", "Backbone", "BackboneFactory", "LeNet", "ResNet"]
