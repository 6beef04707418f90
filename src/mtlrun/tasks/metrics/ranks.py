"""Spearman's rank correlation."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Spearman(Metric):
    """Pearson correlation of the ranks of predictions and targets, in float64; equal numbers have their mean rank.

    NaN if all targets are the same number, or if a prediction is NaN; 0 if all predictions are.
    """

    higher_is_better = True
    full_state_update = False
    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of predictions and targets, both [batch]."""
        self.predictions.append(prediction)
        self.targets.append(target)

    def compute(self) -> Tensor:
        # On the CPU: cumulative sums are not deterministic on GPUs.
        predictions, targets = torch.cat(self.predictions).cpu(), torch.cat(self.targets).cpu()
        if predictions.isnan().any() or targets.min() == targets.max():
            return torch.tensor(torch.nan)
        first, second = _centered_ranks(predictions), _centered_ranks(targets)
        return torch.nan_to_num(first @ second / (first.norm() * second.norm()), nan=0.0)


def _centered_ranks(numbers: Tensor) -> Tensor:
    """Return mean ranks minus their mean, float64 [n]."""
    _, index, counts = numbers.unique(return_inverse=True, return_counts=True)
    ranks = counts.double().cumsum(0) - (counts - 1) / 2
    return torch.index_select(ranks, 0, index) - (len(numbers) + 1) / 2
