"""The coefficient of determination."""

import torch
from torch import Tensor
from torchmetrics import Metric


class R2(Metric):
    """1 - sum of squared errors / sum of squared deviations from the mean; NaN if all targets are the same number.

    Deviations are taken from the mean of the split, in float64, so that targets may be far from zero, or close to each
    other: torchmetrics calls sums of squares below 1e-4 zero, whatever the unit of the targets is.
    """

    higher_is_better = True
    full_state_update = False
    count: Tensor
    mean: Tensor
    deviations: Tensor
    errors: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self) -> None:
        super().__init__()
        starts = {"count": 0.0, "mean": 0.0, "deviations": 0.0, "errors": 0.0}
        for name, start in (starts | {"lowest": torch.inf, "highest": -torch.inf}).items():
            self.add_state(name, torch.tensor(start, dtype=torch.float64))

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of predictions and targets, both [batch], one or more."""
        prediction, target = prediction.double(), target.double()
        mean = target.mean()
        deviations = (target - mean).square().sum()
        # Two sets of numbers are joined by the formula of Chan, Golub & LeVeque (1979).
        count, difference = self.count + len(target), mean - self.mean
        self.deviations += deviations + difference.square() * self.count * len(target) / count
        self.mean += difference * len(target) / count
        self.count = count
        self.errors += (target - prediction).square().sum()
        self.lowest, self.highest = torch.minimum(self.lowest, target.min()), torch.maximum(self.highest, target.max())

    def compute(self) -> Tensor:
        # Compare the extremes, since deviations of equal numbers need not be zero after rounding.
        return torch.where(self.lowest < self.highest, 1 - self.errors / self.deviations, torch.nan)
