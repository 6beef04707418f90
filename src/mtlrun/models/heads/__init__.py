"""Heads: from features to a task's prediction."""

from mtlrun.models.heads.dense import ASPPHead, ConvHead, DenseHead, UpsamplingHead
from mtlrun.models.heads.detection import DetectionHead
from mtlrun.models.heads.mlp import MLPHead

__all__ = ["ASPPHead", "ConvHead", "DenseHead", "DetectionHead", "MLPHead", "UpsamplingHead"]
