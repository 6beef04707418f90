"""Weightings: how K task losses, or their gradients, become one update.

Here: one method per file, with its paper and formula; the three kinds they derive from (`base`), what some need of a
training step besides (`capabilities`), shared `solvers` and `state`, and `combine` for use without a trainer.
Not here: the backward passes and the writing of `.grad` (`gradients`), or the losses of a task (`tasks`).

Contract: a method declares by its base class what it needs, losses, a Gram matrix or task gradients, and gets no more.
It is built from its config only, and learns the number of tasks in `setup`. Parameters, buffers and random generators
are in `state_dict`, so that a run that is continued equals one that never stopped. State of length K is indexed by
`active`. A failed solver is a counted fallback, never a silent one.
"""

from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.weightings.aligned_mtl import AlignedMTL as AlignedMTL
    from mtlrun.weightings.auto_lambda import AutoLambda as AutoLambda
    from mtlrun.weightings.balancer import Balancer as Balancer
    from mtlrun.weightings.base import GradientWeighting as GradientWeighting
    from mtlrun.weightings.base import JacobianWeighting as JacobianWeighting
    from mtlrun.weightings.base import LossWeighting as LossWeighting
    from mtlrun.weightings.base import PartsWeighting as PartsWeighting
    from mtlrun.weightings.base import Weighting as Weighting
    from mtlrun.weightings.bloop import Bloop as Bloop
    from mtlrun.weightings.cagrad import CAGrad as CAGrad
    from mtlrun.weightings.combine import combine as combine
    from mtlrun.weightings.conflict_free import ConFIG as ConFIG
    from mtlrun.weightings.cov_weighting import CoVWeighting as CoVWeighting
    from mtlrun.weightings.db_mtl import DBMTL as DBMTL
    from mtlrun.weightings.dtp import DTP as DTP
    from mtlrun.weightings.dualproj import DualProj as DualProj
    from mtlrun.weightings.dwa import DWA as DWA
    from mtlrun.weightings.equal import Equal as Equal
    from mtlrun.weightings.excess_mtl import ExcessMTL as ExcessMTL
    from mtlrun.weightings.fairgrad import FairGrad as FairGrad
    from mtlrun.weightings.famo import FAMO as FAMO
    from mtlrun.weightings.gcs import GCS as GCS
    from mtlrun.weightings.gls import GLS as GLS
    from mtlrun.weightings.go4align import GO4Align as GO4Align
    from mtlrun.weightings.graddrop import GradDrop as GradDrop
    from mtlrun.weightings.gradnorm import GradNorm as GradNorm
    from mtlrun.weightings.gradvac import GradVac as GradVac
    from mtlrun.weightings.igb import IGB as IGB
    from mtlrun.weightings.imtl_g import IMTLG as IMTLG
    from mtlrun.weightings.imtl_l import IMTLL as IMTLL
    from mtlrun.weightings.lbtw import LBTW as LBTW
    from mtlrun.weightings.metabalance import MetaBalance as MetaBalance
    from mtlrun.weightings.mgda import MGDA as MGDA
    from mtlrun.weightings.moco import MoCo as MoCo
    from mtlrun.weightings.modo import MoDo as MoDo
    from mtlrun.weightings.nash_mtl import NashMTL as NashMTL
    from mtlrun.weightings.pcgrad import PCGrad as PCGrad
    from mtlrun.weightings.rlw import RLW as RLW
    from mtlrun.weightings.rotograd import RotoGrad as RotoGrad
    from mtlrun.weightings.scale_invariant import ScaleInvariant as ScaleInvariant
    from mtlrun.weightings.sdmgrad import SDMGrad as SDMGrad
    from mtlrun.weightings.static import Static as Static
    from mtlrun.weightings.stch import STCH as STCH
    from mtlrun.weightings.uncertainty import Uncertainty as Uncertainty
    from mtlrun.weightings.uncertainty_so import UncertaintySO as UncertaintySO
    from mtlrun.weightings.upgrad import UPGrad as UPGrad
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)
