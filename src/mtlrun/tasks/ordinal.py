"""Ordinal regression: classes that have an order, such as grades or age groups."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa

from mtlrun.config.checks import check_one_of
from mtlrun.tasks.base import HeadFactory, Task, TaskWeight
from mtlrun.tasks.classification import MISSING, check_indices

Criterion = Literal["frank_hall", "corn"]


class Ordinal(Task):
    """One of `num_levels` levels in order; a yes-or-no question for each step between two; MAE, accuracy and kappa.

    Predictions are logits [batch, num_levels - 1]. Targets are levels 0..num_levels-1, integers, [batch]; -1 is a
    missing label. Logit k asks whether the level is above k:

        frank_hall: of every sample, P(y > k) = sigmoid(z_k). The predicted level is the number of those above 1/2.
        corn: of the samples that are above k - 1 only, P(y > k | y > k-1) = sigmoid(z_k), so that P(y > k), the
            product of the first ones, falls with k. The predicted level is the number of products above 1/2.

    The loss is the mean of the binary cross-entropies of all questions that are asked in the batch.

    Metrics, over all labeled samples of the split:
        mae: mean number of levels by which the prediction is off.
        accuracy: share of the samples whose level is right.
        kappa: Cohen's kappa with quadratic weights; NaN where all samples are, and are predicted, on one level.

    Sources: Frank & Hall, "A Simple Approach to Ordinal Classification" (ECML 2001), with one network for all questions
    as in Niu et al., "Ordinal Regression with Multiple Output CNN for Age Estimation" (CVPR 2016); corn: Shi, Cao &
    Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities" (2021).

    Args:
        num_levels: number of levels, 2 or more.
        criterion: `frank_hall` or `corn`.
        lr, weight, head: see `Task`.
    """

    main_metric = "mae"
    nonnegative_loss = True

    def __init__(
        self,
        num_levels: int,
        criterion: Criterion = "frank_hall",
        *,
        lr: float = 1e-3,
        weight: TaskWeight = 1.0,
        head: HeadFactory | None = None,
    ) -> None:
        super().__init__(lr=lr, weight=weight, head=head)
        if num_levels < 2:
            raise ValueError(f"num_levels must be >= 2, found {num_levels}")
        self.num_levels = num_levels
        check_one_of("criterion", criterion, Criterion)
        self.criterion = criterion

    @property
    def output_size(self) -> int:
        return self.num_levels - 1

    def labeled(self, target: Tensor) -> Tensor:
        return target != MISSING

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        asked = self._asked(target)
        above = (target[:, None] > self._steps(target)).to(prediction.dtype)
        losses = nn.functional.binary_cross_entropy_with_logits(prediction, above, reduction="none")
        return (losses * asked).sum() / asked.sum()

    def num_terms(self, target: Tensor) -> Tensor:
        return self._asked(target).sum()

    def _steps(self, target: Tensor) -> Tensor:
        return torch.arange(self.num_levels - 1, device=target.device)

    def _asked(self, target: Tensor) -> Tensor:
        """Return which questions each sample is asked, [batch, num_levels - 1]."""
        if self.criterion == "corn":
            return target[:, None] >= self._steps(target)
        return torch.ones(len(target), self.num_levels - 1, dtype=torch.bool, device=target.device)

    def levels(self, prediction: Tensor) -> Tensor:
        """Return the predicted levels, [batch]."""
        above = prediction.double().sigmoid()
        if self.criterion == "corn":
            above = above.cumprod(dim=1)
        return (above > 0.5).sum(dim=1)

    def metrics(self) -> dict[str, Metric]:
        return {
            "mae": MeanAbsoluteError(),
            "accuracy": MulticlassAccuracy(self.num_levels, average="micro", validate_args=False),
            "kappa": MulticlassCohenKappa(self.num_levels, weights="quadratic", validate_args=False),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.levels(prediction), target

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return 1 - MAE / (num_levels - 1), shape []."""
        return 1 - (self.levels(prediction) - target).abs().float().mean() / (self.num_levels - 1)

    def check_targets(self, target: Tensor) -> None:
        check_indices(target, self.num_levels, "levels")
