"""Geometric loss strategy."""

import torch
from torch import Tensor

from mtlrun.weightings.base import LOG_EPSILON, LossWeighting


class GLS(LossWeighting):
    """(prod_k L_k)^(1/K): the geometric mean of the losses, computed as exp(mean_k log L_k).

    Its gradient is GLS / K times that of `scale_invariant`: the same direction, with steps that shrink with the losses.
    K is the number of tasks with a loss in the batch.

    Source: Chennupati, Sistu, Yogamani & Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
    Strategy for Multi-Task Learning" (CVPR Workshops 2019).

    Args:
        common: see `Weighting`.
    """

    needs_positive_losses = True

    def objective(self, losses: Tensor) -> Tensor:
        # The plain product would exceed the range of float32 for some ten tasks.
        return torch.log(losses + LOG_EPSILON).mean().exp()
