"""What a weighting of gradients multiplies the losses by, as it sees them and before their gradients are taken."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlrun.weightings.state.active_tasks import at_positions
from mtlrun.weightings.transfer import sent


class LossScales:
    """The factors that `TaskGradientWeighting.scale_losses` returns; None for ones.

    Args:
        scales: [K], the losses that the method sees in units of the losses as given.
        slopes: [K], the derivatives of the losses whose gradients are combined.
    """

    def __init__(self, scales: Tensor | None = None, slopes: Tensor | None = None) -> None:
        self._scales, self._slopes = scales, slopes

    def seen(self, losses: Tensor) -> Tensor:
        """Return the losses [K] as the method sees them."""
        return losses if self._scales is None else self._scales * losses

    def scaled(self, losses: Sequence[Tensor], positions: Sequence[int]) -> Sequence[Tensor]:
        """Return losses times the slopes, so that their gradients are those of the scaled, transformed losses.

        Args:
            losses: scalars with their graph, of all K tasks or of some.
            positions: which of the K tasks these are.
        """
        if self._slopes is None:
            return losses
        slopes = at_positions(self._slopes, positions).unbind()
        return [slope * loss for slope, loss in zip(slopes, losses, strict=True)]

    def effective(self, factors: list[float]) -> Tensor:
        """Return the weights [K] of the losses as given, from those of the losses as the method saw them."""
        weights = torch.tensor(factors, dtype=torch.float64)
        slopes = self._slopes
        return weights if slopes is None else sent(weights, slopes.device, slopes.dtype) * slopes
