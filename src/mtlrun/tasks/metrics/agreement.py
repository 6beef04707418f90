"""Cohen's kappa, computed by torchmetrics."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCohenKappa


class Kappa(MulticlassCohenKappa):
    """Cohen's kappa; NaN if the targets are all of one class, which is agreed on as often as chance predicts."""

    def compute(self) -> Tensor:
        several = (self.confmat.sum(dim=1) > 0).sum() > 1
        return torch.where(several, super().compute(), torch.nan)
