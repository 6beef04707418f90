"""Weightings: one method per file. `combine` runs any of them on a given Jacobian."""

from mtlrun.weightings.aligned_mtl import AlignedMTL
from mtlrun.weightings.auto_lambda import AutoLambda
from mtlrun.weightings.base import GradientWeighting, JacobianWeighting, LossWeighting, PartsWeighting, Weighting
from mtlrun.weightings.cagrad import CAGrad
from mtlrun.weightings.combine import combine
from mtlrun.weightings.conflict_free import ConFIG
from mtlrun.weightings.cov_weighting import CoVWeighting
from mtlrun.weightings.db_mtl import DBMTL
from mtlrun.weightings.dtp import DTP
from mtlrun.weightings.dualproj import DualProj
from mtlrun.weightings.dwa import DWA
from mtlrun.weightings.equal import Equal
from mtlrun.weightings.excess_mtl import ExcessMTL
from mtlrun.weightings.fairgrad import FairGrad
from mtlrun.weightings.famo import FAMO
from mtlrun.weightings.gls import GLS
from mtlrun.weightings.go4align import GO4Align
from mtlrun.weightings.graddrop import GradDrop
from mtlrun.weightings.gradnorm import GradNorm
from mtlrun.weightings.gradvac import GradVac
from mtlrun.weightings.igb import IGB
from mtlrun.weightings.imtl_g import IMTLG
from mtlrun.weightings.imtl_l import IMTLL
from mtlrun.weightings.lbtw import LBTW
from mtlrun.weightings.mgda import MGDA
from mtlrun.weightings.moco import MoCo
from mtlrun.weightings.modo import MoDo
from mtlrun.weightings.nash_mtl import NashMTL
from mtlrun.weightings.pcgrad import PCGrad
from mtlrun.weightings.rlw import RLW
from mtlrun.weightings.rotograd import RotoGrad
from mtlrun.weightings.scale_invariant import ScaleInvariant
from mtlrun.weightings.sdmgrad import SDMGrad
from mtlrun.weightings.static import Static
from mtlrun.weightings.stch import STCH
from mtlrun.weightings.uncertainty import Uncertainty
from mtlrun.weightings.uncertainty_so import UncertaintySO
from mtlrun.weightings.upgrad import UPGrad

__all__ = [
    "DBMTL",
    "DTP",
    "DWA",
    "FAMO",
    "GLS",
    "IGB",
    "IMTLG",
    "IMTLL",
    "LBTW",
    "MGDA",
    "RLW",
    "STCH",
    "AlignedMTL",
    "AutoLambda",
    "CAGrad",
    "CoVWeighting",
    "ConFIG",
    "DualProj",
    "Equal",
    "ExcessMTL",
    "FairGrad",
    "GO4Align",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientWeighting",
    "JacobianWeighting",
    "LossWeighting",
    "MoCo",
    "MoDo",
    "NashMTL",
    "PCGrad",
    "PartsWeighting",
    "RotoGrad",
    "SDMGrad",
    "ScaleInvariant",
    "Static",
    "UPGrad",
    "Uncertainty",
    "UncertaintySO",
    "Weighting",
    "combine",
]
