"""Errors of predicted numbers and rates, and the coefficient of determination."""

import torch
from torch import Tensor
from torchmetrics import Metric

from mtlrun.tasks.metrics.shared import SharedState


class _Errors(SharedState):
    """Base of metrics of predicted numbers, in float64: the unit of the targets is any.

    Args:
        num_outputs: how many numbers are predicted for each sample.
    """

    higher_is_better = False
    count: Tensor
    mean: Tensor
    deviations: Tensor
    squares: Tensor
    absolute: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64))
        starts = dict.fromkeys(("mean", "deviations", "squares", "absolute"), 0.0)
        for name, start in (starts | {"lowest": torch.inf, "highest": -torch.inf}).items():
            self.add_state(name, torch.full((num_outputs,), start, dtype=torch.float64))

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of predictions and targets, both [batch] or [batch, num_outputs], one or more."""
        prediction, target = (numbers.reshape(len(numbers), -1).double() for numbers in (prediction, target))
        mean = target.mean(dim=0)
        deviations = (target - mean).square().sum(dim=0)
        # Two sets of numbers are joined by the formula of Chan, Golub & LeVeque (1979).
        count, difference = self.count + len(target), mean - self.mean
        self.deviations += deviations + difference.square() * self.count * len(target) / count
        self.mean += difference * len(target) / count
        self.count = count
        errors = target - prediction
        self.squares += errors.square().sum(dim=0)
        self.absolute += errors.abs().sum(dim=0)
        self.lowest = torch.minimum(self.lowest, target.min(dim=0).values)
        self.highest = torch.maximum(self.highest, target.max(dim=0).values)


class RMSE(_Errors):
    """Root of the mean squared error, over all numbers."""

    def compute(self) -> Tensor:
        return (self.squares.mean() / self.count).sqrt()


class MAE(_Errors):
    """Mean absolute error, over all numbers."""

    def compute(self) -> Tensor:
        return self.absolute.mean() / self.count


class R2(_Errors):
    """1 - sum of squared errors / sum of squared deviations from the mean; of several numbers the mean over them.

    Deviations are taken from the mean of the split, so that targets may be far from zero, or close to each other:
    torchmetrics calls sums of squares below 1e-4 zero, whatever the unit of the targets is. A number that is the same
    in all targets is left out of the mean; NaN if there is no other.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        # Compare the extremes, since deviations of equal numbers need not be zero after rounding.
        varies = self.lowest < self.highest
        return torch.where(varies, 1 - self.squares / self.deviations, torch.nan).nanmean()


class PoissonDeviance(Metric):
    """Twice the mean of y log(y / rate) - y + rate, over counts y and predicted rates, in float64."""

    higher_is_better = False
    full_state_update = False
    count: Tensor
    deviance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64))
        self.add_state("deviance", torch.tensor(0.0, dtype=torch.float64))

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of rates and counts, both float64 [batch]."""
        self.count += len(target)
        self.deviance += 2 * (torch.xlogy(target, target / prediction) - target + prediction).sum()

    def compute(self) -> Tensor:
        return self.deviance / self.count
