"""Heads: networks from features to one task's prediction.

Here: heads for one prediction per sample, for one at each pixel, and for boxes.
Not here: losses and metrics, and what a prediction means; that is the task's.

Contract: a head is a module made from two shapes, that of one sample's features and that of its prediction: (n,), or
(n, height, width) of the input for a dense task and for boxes. The kind of task has a default; `tasks.<t>.head`
replaces it. `DetectionHead` returns the position and size of each of its cells along with the prediction, so that the
task does not depend on the head.
"""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.models.heads.dense import ASPPHead as ASPPHead
    from mtlrun.models.heads.dense import ConvHead as ConvHead
    from mtlrun.models.heads.dense import DenseHead as DenseHead
    from mtlrun.models.heads.dense import UpsamplingHead as UpsamplingHead
    from mtlrun.models.heads.detection import DetectionHead as DetectionHead
    from mtlrun.models.heads.mlp import MLPHead as MLPHead
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
