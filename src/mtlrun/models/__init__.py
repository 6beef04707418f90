"""Models: one sharing architecture per file."""

from mtlrun.models.adapters import Adapters
from mtlrun.models.adatt import AdaTT
from mtlrun.models.adversarial import Adversarial
from mtlrun.models.base import AuxiliaryPredictions, MultiTaskModel, Output, ParameterGroup, SharedRepresentationModel
from mtlrun.models.blocks.batchnorm_statistics import SourceStatistics
from mtlrun.models.cascade import Cascade
from mtlrun.models.cgc import CGC
from mtlrun.models.cross_stitch import CrossStitch
from mtlrun.models.dselect_k import DSelectK
from mtlrun.models.hard import HardSharing
from mtlrun.models.lora import LoRA
from mtlrun.models.ltb import LTB
from mtlrun.models.mmoe import MMoE
from mtlrun.models.mtan import MTAN
from mtlrun.models.mti_net import MTINet
from mtlrun.models.nddr import NDDR
from mtlrun.models.pad_net import PADNet
from mtlrun.models.ple import PLE
from mtlrun.models.single import SingleTask
from mtlrun.models.sluice import Sluice
from mtlrun.models.soft import SoftSharing
from mtlrun.models.soft_trace import SoftTrace
from mtlrun.models.task_routing import TaskRouting

__all__ = [
    "CGC",
    "LTB",
    "MTAN",
    "NDDR",
    "PLE",
    "AdaTT",
    "Adapters",
    "Adversarial",
    "AuxiliaryPredictions",
    "Cascade",
    "CrossStitch",
    "DSelectK",
    "HardSharing",
    "LoRA",
    "MMoE",
    "MTINet",
    "MultiTaskModel",
    "Output",
    "PADNet",
    "ParameterGroup",
    "SharedRepresentationModel",
    "SingleTask",
    "Sluice",
    "SoftSharing",
    "SoftTrace",
    "SourceStatistics",
    "TaskRouting",
]
