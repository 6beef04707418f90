"""CoV-weighting: weights from the losses' coefficients of variation."""

import torch
from torch import Tensor

from mtlrun.weightings.base import LossWeighting

# Added to the variance, as in the authors' code: losses that never change have equal weights.
_EPSILON = 1e-8


class CoVWeighting(LossWeighting):
    """sum_k w_k L_k with w_k = c_k / sum_j c_j and c_k = std(l_k) / mean(l_k): losses that vary more weigh more.

    l_k(t) = L_k(t) / mean(L_k(1), ..., L_k(t-1)), and 1 in a task's first step; c_k is that of all l_k before the step,
    with the population standard deviation. Weights sum to one; they are equal while an active task has had fewer than
    two losses.

    Source: Groenendijk, Karaoglu, Gevers & Mensink, "Multi-Loss Weighting with Coefficient of Variations" (WACV 2021),
    made for several losses of one task. That c_k excludes the current step, and the first steps, are as in the
    authors' code.

    Args:
        common: see `Weighting`.
    """

    needs_positive_losses = True
    count: Tensor
    mean_loss: Tensor
    mean_ratio: Tensor
    squares: Tensor

    def setup(self, num_tasks: int, seed: int = 0) -> None:
        super().setup(num_tasks, seed)
        # Number of losses so far, their mean, the mean of l, and the sum of squared deviations of l from its mean.
        for name in ("count", "mean_loss", "mean_ratio", "squares"):
            self.register_buffer(name, torch.zeros(num_tasks, dtype=torch.float64))

    def objective(self, losses: Tensor) -> Tensor:
        weights = self._weights()
        self._update(losses.detach().to(self.mean_loss))
        return (weights.to(losses.dtype) * losses).sum()

    def _weights(self) -> Tensor:
        """Return the weights of the active tasks, from the statistics before this step."""
        count, mean = self.count[self.active], self.mean_ratio[self.active]
        variance = self.squares[self.active] / count.clamp_min(1)
        variation = torch.sqrt(variance + _EPSILON) / mean.clamp_min(_EPSILON)
        variation = torch.where((count >= 2).all(), variation, 1.0)
        return variation / variation.sum()

    def _update(self, losses: Tensor) -> None:
        active = self.active
        mean_loss, mean_ratio = self.mean_loss[active], self.mean_ratio[active]
        ratio = torch.where(mean_loss > 0, losses / mean_loss, 1.0)
        count = self.count[active] + 1
        new_mean = mean_ratio + (ratio - mean_ratio) / count
        self.squares[active] += (ratio - mean_ratio) * (ratio - new_mean)
        self.mean_ratio[active] = new_mean
        self.mean_loss[active] = mean_loss + (losses - mean_loss) / count
        self.count[active] = count
