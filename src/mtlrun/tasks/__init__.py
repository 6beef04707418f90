"""Task kinds: each brings its loss, its metrics with their direction, and the size of its head."""

from mtlrun.tasks.base import Meter, Task
from mtlrun.tasks.binary import BinaryClassification
from mtlrun.tasks.classification import Classification
from mtlrun.tasks.count import Count
from mtlrun.tasks.depth import Depth
from mtlrun.tasks.detection import Detection
from mtlrun.tasks.multilabel import MultiLabel
from mtlrun.tasks.normals import SurfaceNormals
from mtlrun.tasks.objective import Objective
from mtlrun.tasks.ordinal import Ordinal
from mtlrun.tasks.regression import Regression
from mtlrun.tasks.segmentation import Segmentation

__all__ = [
    "BinaryClassification",
    "Classification",
    "Count",
    "Depth",
    "Detection",
    "Meter",
    "MultiLabel",
    "Objective",
    "Ordinal",
    "Regression",
    "Segmentation",
    "SurfaceNormals",
    "Task",
]
