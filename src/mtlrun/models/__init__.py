"""Models: one sharing architecture per file."""

from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, SharedRepresentationModel, Supervised
from mtlrun.models.cross_stitch import CrossStitch
from mtlrun.models.hard import HardSharing
from mtlrun.models.single import SingleTask
from mtlrun.models.soft import SoftSharing

__all__ = [
    "CrossStitch",
    "HardSharing",
    "MultiTaskModel",
    "Output",
    "ParameterGroup",
    "SharedRepresentationModel",
    "SingleTask",
    "SoftSharing",
    "Supervised",
]
