"""Weightings: one method per file. `combine` runs any of them on a given Jacobian."""

from mtlrun.weightings.base import GradientWeighting, JacobianWeighting, LossWeighting, Weighting
from mtlrun.weightings.combining import combine
from mtlrun.weightings.dtp import DTP
from mtlrun.weightings.dwa import DWA
from mtlrun.weightings.equal import Equal
from mtlrun.weightings.famo import FAMO
from mtlrun.weightings.graddrop import GradDrop
from mtlrun.weightings.gradnorm import GradNorm
from mtlrun.weightings.mgda import MGDA
from mtlrun.weightings.pcgrad import PCGrad
from mtlrun.weightings.static import Static
from mtlrun.weightings.uncertainty import Uncertainty

__all__ = [
    "DTP",
    "DWA",
    "FAMO",
    "MGDA",
    "Equal",
    "GradDrop",
    "GradNorm",
    "GradientWeighting",
    "JacobianWeighting",
    "LossWeighting",
    "PCGrad",
    "Static",
    "Uncertainty",
    "Weighting",
    "combine",
]
