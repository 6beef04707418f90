"""Task kinds: each brings its loss, its metrics with their direction, and the size of its head."""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.tasks.base import Meter as Meter
    from mtlrun.tasks.base import Task as Task
    from mtlrun.tasks.binary import BinaryClassification as BinaryClassification
    from mtlrun.tasks.classification import Classification as Classification
    from mtlrun.tasks.count import Count as Count
    from mtlrun.tasks.depth import Depth as Depth
    from mtlrun.tasks.detection import Detection as Detection
    from mtlrun.tasks.multilabel import MultiLabel as MultiLabel
    from mtlrun.tasks.normals import SurfaceNormals as SurfaceNormals
    from mtlrun.tasks.objective import Objective as Objective
    from mtlrun.tasks.ordinal import Ordinal as Ordinal
    from mtlrun.tasks.regression import Regression as Regression
    from mtlrun.tasks.segmentation import Segmentation as Segmentation
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
