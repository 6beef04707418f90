"""Task kinds: what can be predicted, and how it is trained and evaluated.

Here: one file per kind, with its loss, its metrics and the checks of its targets; in `losses` and `metrics` the parts
that several kinds share, or that are long.
Not here: heads (`models.heads`), the masking of unlabeled samples in a batch (`training.batch`), or how the losses of
several tasks are combined (`weightings`).

Contract: a `Task` knows nothing of other tasks, models or the config. Its loss is a mean over labeled samples, and its
metrics are pooled over the split. Constructors pass on the arguments that they do not use, as `**common`. What a kind
can do besides is a mixin: `MeasuresPerformance`, `ConstantPredictor`, `DecodesPredictions`, `DecodesMaps`,
`DecodesBoxes`, `GeneralizedLinear`, `AveragesPredictions`, `DrawsPictures`.
"""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.tasks.averaging import AveragesPredictions as AveragesPredictions
    from mtlrun.tasks.base import ConstantPredictor as ConstantPredictor
    from mtlrun.tasks.base import Decoded as Decoded
    from mtlrun.tasks.base import DecodesBoxes as DecodesBoxes
    from mtlrun.tasks.base import DecodesMaps as DecodesMaps
    from mtlrun.tasks.base import DecodesPredictions as DecodesPredictions
    from mtlrun.tasks.base import DrawsPictures as DrawsPictures
    from mtlrun.tasks.base import GeneralizedLinear as GeneralizedLinear
    from mtlrun.tasks.base import MeasuresPerformance as MeasuresPerformance
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
