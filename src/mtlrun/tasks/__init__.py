"""Task kinds: each brings its loss, its metrics with their direction, and the size of its head."""

from mtlrun.tasks.base import Meter, Task
from mtlrun.tasks.classification import Classification
from mtlrun.tasks.depth import Depth
from mtlrun.tasks.labels import LabelledBatch
from mtlrun.tasks.normals import SurfaceNormals
from mtlrun.tasks.regression import Regression
from mtlrun.tasks.segmentation import Segmentation

__all__ = [
    "Classification",
    "Depth",
    "LabelledBatch",
    "Meter",
    "Regression",
    "Segmentation",
    "SurfaceNormals",
    "Task",
]
