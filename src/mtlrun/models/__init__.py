"""Models: architectures that decide what tasks share, one per file.

Here: the architectures and their base classes (`base`), `backbones`, `heads`, and the `blocks` that several use.
Not here: losses, weightings and training; a model computes predictions and terms of the objective, and no gradients.

Contract: a model is built from {name: task} and a factory of backbones. `forward(inputs, tasks)` returns an `Output`
with the predictions of the requested tasks; regularizers and auxiliary predictions are returned with their graph in
training mode, are absent in evaluation mode, and are never kept on the module. `parameter_groups()` declares each
parameter once: `task=t` if only the loss of t reaches it, `task=None` if those of several tasks do (`shared_by`, if not
all). Learning rates and gradient methods rely on that, and a test compares it with autograd for every model. So the
coupled networks of `cross_stitch` are shared, and `soft` shares nothing, as a penalty, not a task's loss, ties them.
"""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.models.adapters import Adapters as Adapters
    from mtlrun.models.adatt import AdaTT as AdaTT
    from mtlrun.models.adversarial import Adversarial as Adversarial
    from mtlrun.models.base import AuxiliaryPredictions as AuxiliaryPredictions
    from mtlrun.models.base import CutsTrunk as CutsTrunk
    from mtlrun.models.base import MixesNetworks as MixesNetworks
    from mtlrun.models.base import MultiTaskModel as MultiTaskModel
    from mtlrun.models.base import Output as Output
    from mtlrun.models.base import ParameterGroup as ParameterGroup
    from mtlrun.models.base import SharedRepresentationModel as SharedRepresentationModel
    from mtlrun.models.blocks.batchnorm_statistics import SourceStatistics as SourceStatistics
    from mtlrun.models.cascade import Cascade as Cascade
    from mtlrun.models.cgc import CGC as CGC
    from mtlrun.models.concat import Concat as Concat
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
