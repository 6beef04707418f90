"""Scale-invariant sum of losses."""

import torch
from torch import Tensor

from mtlrun.weightings.base import LOG_EPSILON, LossWeighting


class ScaleInvariant(LossWeighting):
    """sum_k log L_k: the effective weight of a task is 1 / L_k, so that the scale of its loss does not matter.

    The same as `equal` with `loss_transform: log`; also called SI.

    Source: the baseline of this name in Navon et al., "Multi-Task Learning as a Bargaining Game" (ICML 2022).

    Args:
        common: see `Weighting`.
    """

    needs_positive_losses = True

    def objective(self, losses: Tensor) -> Tensor:
        return torch.log(losses + LOG_EPSILON).sum()
