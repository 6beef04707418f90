"""Aligned-MTL: independent component alignment."""

from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.weightings.base import GradientWeighting, Reduction
from mtlrun.weightings.preferences import UsesPreferences
from mtlrun.weightings.solvers.cone import RANK_TOLERANCE, cosines

Scale = Literal["min", "median", "rmse"]


class AlignedMTL(UsesPreferences, GradientWeighting):
    """The mean of the nearest vectors to the task gradients that are orthogonal and of equal length.

    With G G^T = V S V^T over its numerical rank and sigma² the smallest of the eigenvalues S, the matrix
    B = sigma V S^(-1/2) V^T maps the gradients to the orthogonal ones B G, and the weights are B w for task priorities
    w: the preferences, scaled to sum to one. All singular values of B G are sigma, the smallest one of G.

    Source: Senushkin et al., "Independent Component Alignment for Multi-Task Learning" (CVPR 2023), algorithm 1.

    Args:
        scale: which eigenvalue sigma² is: `min`, the smallest, as in the paper; `median`; or `rmse`, their mean.
        reduction: `mean` for priorities that sum to one, `sum` for K, as in published code.
        preferences: see `UsesPreferences`.
        head_loss: `unweighted` by default, since only shared parameters are aligned.
        common: see `GradientWeighting`.
    """

    def __init__(self, scale: Scale = "min", reduction: Reduction = "mean", **common: Any) -> None:
        super().__init__(**common)
        check_one_of("scale", scale, Scale)
        check_one_of("reduction", reduction, Reduction)
        self.scale = scale
        self.reduction = reduction

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        num_tasks = len(gram)
        priorities = self.relative_preferences(num_tasks) * (1.0 if self.reduction == "sum" else 1 / num_tasks)
        return torch.from_numpy(self._balance(gram.numpy(), priorities))

    def _balance(self, gram: numpy.ndarray, priorities: numpy.ndarray) -> numpy.ndarray:
        eigenvalues, vectors = numpy.linalg.eigh(gram)
        rank = numerical_rank(gram, eigenvalues)
        if rank == 0:
            return priorities  # all gradients are zero
        eigenvalues, vectors = eigenvalues[-rank:], vectors[:, -rank:]
        match self.scale:
            case "min":
                squared_length = eigenvalues[0]
            case "median":
                squared_length = eigenvalues[(rank - 1) // 2]
            case "rmse":
                squared_length = eigenvalues.mean()
        balanced: numpy.ndarray = vectors @ (numpy.sqrt(squared_length / eigenvalues) * (vectors.T @ priorities))
        return balanced


def numerical_rank(gram: numpy.ndarray, eigenvalues: numpy.ndarray) -> int:
    """Return how many of the eigenvalues of `gram` are more than rounding errors.

    The rank is that of the matrix of cosines, so that a short gradient counts as much as a long one; an eigenvalue must
    also exceed the rounding error of `eigenvalues`.
    """
    independent = int((numpy.linalg.eigvalsh(cosines(gram)[0]) > RANK_TOLERANCE).sum())
    smallest = len(gram) * numpy.finfo(numpy.float64).eps * eigenvalues[-1]
    return min(independent, int((eigenvalues > smallest).sum()))
