"""Models: one sharing architecture per file."""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.models.adapters import Adapters as Adapters
    from mtlrun.models.adatt import AdaTT as AdaTT
    from mtlrun.models.adversarial import Adversarial as Adversarial
    from mtlrun.models.base import AuxiliaryPredictions as AuxiliaryPredictions
    from mtlrun.models.base import MultiTaskModel as MultiTaskModel
    from mtlrun.models.base import Output as Output
    from mtlrun.models.base import ParameterGroup as ParameterGroup
    from mtlrun.models.base import SharedRepresentationModel as SharedRepresentationModel
    from mtlrun.models.blocks.batchnorm_statistics import SourceStatistics as SourceStatistics
    from mtlrun.models.cascade import Cascade as Cascade
    from mtlrun.models.cgc import CGC as CGC
    from mtlrun.models.cross_stitch import CrossStitch as CrossStitch
    from mtlrun.models.dselect_k import DSelectK as DSelectK
    from mtlrun.models.hard import HardSharing as HardSharing
    from mtlrun.models.lora import LoRA as LoRA
    from mtlrun.models.ltb import LTB as LTB
    from mtlrun.models.mmoe import MMoE as MMoE
    from mtlrun.models.mtan import MTAN as MTAN
    from mtlrun.models.mti_net import MTINet as MTINet
    from mtlrun.models.nddr import NDDR as NDDR
    from mtlrun.models.pad_net import PADNet as PADNet
    from mtlrun.models.ple import PLE as PLE
    from mtlrun.models.single import SingleTask as SingleTask
    from mtlrun.models.sluice import Sluice as Sluice
    from mtlrun.models.soft import SoftSharing as SoftSharing
    from mtlrun.models.soft_trace import SoftTrace as SoftTrace
    from mtlrun.models.task_routing import TaskRouting as TaskRouting
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
