"""Gradient cosine similarity: auxiliary gradients join where they agree with the primary one."""

from typing import Any

import torch
from torch import Tensor

from mtlrun.weightings.base import GradientWeighting
from mtlrun.weightings.primary import HasPrimaryTask


class GCS(HasPrimaryTask, GradientWeighting):
    """The gradient of the primary task, and those auxiliary ones that do not point against it.

    d = g_0 + sum_k>0 w_k g_k, where task 0 is the primary one, and w_k is 1 if cos(g_0, g_k) >= 0, else 0; or
    w_k = max(0, cos(g_0, g_k)) with `by_cosine`.

    Source: Du et al., "Adapting Auxiliary Losses Using Gradient Similarity" (2018, arXiv 1812.02224), which calls the
    two the unweighted and the weighted version. In a step without a loss of the primary task there is nothing to agree
    with: no auxiliary gradient joins, and the step is counted as one that fell back, since a run of many such steps is
    not what it seems.

    Args:
        by_cosine: weigh the auxiliary gradients that join by their cosines.
        primary: see `HasPrimaryTask`.
        common: see `GradientWeighting`.
    """

    def __init__(self, by_cosine: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.by_cosine = by_cosine

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        row = self.primary_row()
        if row is None:
            self.fall_back("the primary task has no label in the batch, so that no other task's gradient joins")
            return torch.zeros(len(gram), dtype=gram.dtype)
        products = gram[row]
        weights = (products >= 0).to(gram)
        if self.by_cosine:
            norms = gram.diagonal().clamp_min(0).sqrt()
            scale = norms * norms[row]
            weights = torch.where(scale > 0, products / scale, 0.0).clamp(0, 1)
        weights[row] = 1.0
        return weights
