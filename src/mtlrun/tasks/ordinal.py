"""Ordinal regression: classes that have an order, such as grades or age groups."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Classes, checked
from mtlrun.config.checks import check_one_of
from mtlrun.tasks.averaging import AveragesPredictions, log, log_odds, no_and_yes
from mtlrun.tasks.base import (
    ConstantPredictor,
    Decoded,
    DecodesPredictions,
    Directions,
    Family,
    GeneralizedLinear,
    MeasuresPerformance,
    Task,
    TaskOptions,
    describe_equal,
    log_frequencies,
)
from mtlrun.tasks.classification import MISSING, check_indices
from mtlrun.tasks.losses.class_weights import count_classes
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.decisions import accuracy, decisions, quadratic_kappa
from mtlrun.tasks.resampling.means import means

if TYPE_CHECKING:
    from torchmetrics import Metric

Criterion = Literal["frank_hall", "corn"]


class Ordinal(Task, MeasuresPerformance, ConstantPredictor, DecodesPredictions, AveragesPredictions, GeneralizedLinear):
    """One of `num_levels` ordered levels: a binary classification per threshold; MAE, accuracy and kappa.

    Predictions are logits [batch, num_levels - 1]; targets are levels 0..num_levels-1, integers, [batch], -1 for a
    missing label. Logit z_k predicts whether the level y is above k:

        frank_hall: P(y > k) = sigmoid(z_k), trained on all samples. The predicted level is the number of these
            probabilities above 1/2.
        corn: P(y > k | y > k-1) = sigmoid(z_k), trained on the samples above k - 1, so that P(y > k), the product of
            the first k + 1 of these, falls with k. The predicted level is the number of products above 1/2.

    The loss is the mean binary cross-entropy over all pairs of a sample and a threshold that it is trained on.

    Metrics, over all labeled samples of the split:
        mae: mean number of levels by which the prediction is off.
        accuracy: fraction of the samples whose level is predicted correctly.
        kappa: Cohen's kappa with quadratic weights; NaN if all samples have the same level.

    Sources: Frank & Hall, "A Simple Approach to Ordinal Classification" (ECML 2001), with one network for all
    thresholds as in Niu et al., "Ordinal Regression with Multiple Output CNN for Age Estimation" (CVPR 2016); corn:
    Shi, Cao & Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities"
    (2021).

    Args:
        num_levels: number of levels, 2 or more.
        criterion: `frank_hall` or `corn`.
        common: see `Task`.
    """

    main_metric = "mae"
    metric_directions: ClassVar[Directions] = {"mae": "min", "accuracy": "max", "kappa": "max"}
    family: ClassVar[Family] = "bernoulli"
    distribution_dim = -1
    nonnegative_loss = True
    categorical = True

    @checked
    def __init__(self, num_levels: Classes, criterion: Criterion = "frank_hall", **common: Unpack[TaskOptions]) -> None:
        super().__init__(**common)
        self.num_levels = num_levels
        check_one_of("criterion", criterion, Criterion)
        self.criterion = criterion

    @property
    def output_size(self) -> int:
        return self.num_levels - 1

    def labeled(self, target: Tensor) -> Tensor:
        return target != MISSING

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        trained = self._trained(target)
        above = (target[:, None] > self._thresholds(target)).to(prediction.dtype)
        losses = nn.functional.binary_cross_entropy_with_logits(prediction, above, reduction="none")
        return (losses * trained).sum() / trained.sum()

    def num_terms(self, target: Tensor) -> Tensor:
        return self._trained(target).sum()

    def _thresholds(self, target: Tensor) -> Tensor:
        return torch.arange(self.num_levels - 1, device=target.device)

    def _trained(self, target: Tensor) -> Tensor:
        """Return a mask of the thresholds that each sample trains, [batch, num_levels - 1]."""
        if self.criterion == "corn":
            return target[:, None] >= self._thresholds(target)
        return torch.ones(len(target), self.num_levels - 1, dtype=torch.bool, device=target.device)

    def levels(self, prediction: Tensor) -> Tensor:
        """Return the predicted levels, [batch]."""
        return (self._above(prediction) > 0.5).sum(dim=1)

    def _above(self, prediction: Tensor) -> Tensor:
        """Return the predicted probabilities that the level is above each threshold, [batch, num_levels - 1]."""
        above = prediction.double().sigmoid()
        return above.cumprod(dim=1) if self.criterion == "corn" else above

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.confusion import FractionRight, Kappa, LevelError

        levels = self.num_levels
        return {"mae": LevelError(levels), "accuracy": FractionRight(levels), "kappa": Kappa(levels)}

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.levels(prediction), target

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics:
        levels = self.levels(prediction)
        return join(
            means({"mae": (levels - target).abs()}),
            decisions(levels, target, self.num_levels, {"accuracy": accuracy}),
            quadratic_kappa(levels, target, self.num_levels),
        )

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        why = describe_equal(target, names)
        return {} if why is None else {"kappa": why}

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return 1 - MAE / (num_levels - 1), shape []."""
        return 1 - (self.levels(prediction) - target).abs().float().mean() / (self.num_levels - 1)

    def target_sums(self, target: Tensor) -> Tensor:
        """Return the number of samples of each level, [num_levels]."""
        return count_classes(target, self.num_levels, MISSING)

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        """Return the frequencies with which levels are above each threshold; the level that they predict is a median.

        With `corn`, those among the samples above the threshold before.
        """
        at_least = sums.flip(0).cumsum(0).flip(0)
        above, reached = at_least[1:], at_least[:-1] if self.criterion == "corn" else at_least[:1]
        return (log_frequencies(above) - log_frequencies(reached - above)).expand(len(target), -1)

    def decode(self, prediction: Tensor) -> Decoded:
        """Return levels, and the probability of each.

        With `frank_hall` P(y > k) need not fall with k. Sorted it does, and as many are above 1/2 as before, so that
        the level is a median of the distribution. Source: Chernozhukov, Fernandez-Val & Galichon, "Quantile and
        Probability Curves Without Crossing" (Econometrica 2010), by whom the sorted curve is nearer to the true one.
        """
        above = self._above(prediction).sort(dim=1, descending=True).values
        at_least = nn.functional.pad(above, (1, 0), value=1.0)
        return Decoded(self.levels(prediction), at_least - nn.functional.pad(above, (0, 1)))

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the probabilities that the level is not above, and above, each threshold, [n, num_levels - 1, 2]."""
        pairs = no_and_yes(prediction)
        if self.criterion == "frank_hall":
            return pairs
        above = pairs[..., 1].cumprod(dim=1)
        reached = nn.functional.pad(above[:, :-1], (1, 0), value=1.0)
        return torch.stack([(reached * pairs[..., 0]).cumsum(dim=1), above], dim=-1)

    def from_average(self, average: Tensor) -> Tensor:
        if self.criterion == "frank_hall":
            return log_odds(average)
        below, above = average.unbind(dim=-1)
        exactly = below - nn.functional.pad(below[:, :-1], (1, 0))
        return (log(above) - log(exactly)).float()

    def observed(self, target: Tensor) -> Tensor:
        return (target[:, None] > self._thresholds(target)).long()

    def observations(self, target: Tensor) -> Tensor:
        """Return for each threshold whether the level is above it, NaN if the sample does not train it."""
        above = (target[:, None] > self._thresholds(target)).double()
        return torch.where(self._trained(target), above, torch.nan)

    def check_targets(self, target: Tensor) -> None:
        check_indices(target, self.num_levels, "levels")
