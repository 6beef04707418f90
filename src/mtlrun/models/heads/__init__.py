"""Heads: from features to a task's prediction."""

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
