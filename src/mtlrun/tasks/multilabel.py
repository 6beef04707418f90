"""Several yes-or-no labels, predicted by one head, as one task."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Bounds, checked
from mtlrun.config.listing import item
from mtlrun.tasks.averaging import AveragesPredictions, log_odds, no_and_yes
from mtlrun.tasks.base import (
    Decoded,
    DecodesPredictions,
    Directions,
    Family,
    GeneralizedLinear,
    log_frequencies,
)
from mtlrun.tasks.binary import check_binary_labels
from mtlrun.tasks.class_task import ClassTask, ClassTaskOptions
from mtlrun.tasks.losses.class_weights import ClassWeights, balanced_label_weights, initial_label_weights
from mtlrun.tasks.losses.focal import binary_focal_losses
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.decisions import macro_f1_of_labels
from mtlrun.tasks.resampling.rankings import rankings

if TYPE_CHECKING:
    from torchmetrics import Metric

_LISTED = 8  # labels at most in a message


class MultiLabel(ClassTask, DecodesPredictions, AveragesPredictions, GeneralizedLinear):
    """Yes or no for each of `num_labels` labels: binary cross-entropy by default; macro ROC-AUC, mAP and macro F1.

    Predictions are logits [batch, num_labels]; targets are 0 or 1, integers or floating-point numbers, of the same
    shape. A target of -1 or NaN is a missing label; a sample is labeled if any of its labels is not missing. The loss
    is the mean over the labels that are not missing, and with class weights the weighted mean, divided by the sum of
    their weights; metrics are not weighted.

    Metrics, each computed per label over all samples of the split in which it is not missing, then averaged over the
    labels:
        auroc: area under the ROC curve. A label that is the same in all samples is left out of the mean.
        map: average precision. A label that is 1 in no sample is left out of the mean.
        f1: with a probability above 1/2 as yes; 0 for a label that is never 1.
        They are NaN if this leaves no label; F1 is if no label is ever 1.

    Args:
        num_labels: number of labels, 2 or more.
        class_weights: `none`; `balanced`, which gives no and yes of each label the same fraction of the loss, by their
            frequency in the training split; or a number > 0 for each label: how often a yes counts compared to a no.
            For one label this is a `BinaryClassification` with `class_weights=[1, w]`.
        options: see `ClassTask`.
    """

    main_metric = "auroc"
    metric_directions: ClassVar[Directions] = {"auroc": "max", "map": "max", "f1": "max"}
    family: ClassVar[Family] = "bernoulli"
    distribution_dim = -1

    #: Of no and of yes, [2, num_labels]; None if all labels count the same.
    label_weights: Tensor | None

    @checked
    def __init__(
        self,
        num_labels: Annotated[int, Bounds(2, 10**6, limit=True, advice="one label is a BinaryClassification")],
        class_weights: ClassWeights = "none",
        **options: Unpack[ClassTaskOptions],
    ) -> None:
        super().__init__(**options)
        self.num_labels = num_labels
        self.register_buffer("label_weights", initial_label_weights(class_weights, num_labels))
        self.needs_fit = class_weights == "balanced"

    def fit(self, targets: Iterable[Tensor]) -> None:
        self.label_weights = balanced_label_weights(targets, self.num_labels)

    @property
    def output_size(self) -> int:
        return self.num_labels

    def labeled(self, target: Tensor) -> Tensor:
        return (target >= 0).any(dim=1)  # false for NaN

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        mask = target >= 0
        # NaN times zero is NaN, so missing labels are replaced before any arithmetic.
        label = torch.where(mask, target, 0).to(prediction.dtype)
        if self.criterion == "focal":
            losses = binary_focal_losses(prediction, label, self.focal_gamma)
            return ((losses * self._weights(target)).sum() / self.num_terms(target)).to(prediction.dtype)
        smooth = label * (1 - self.label_smoothing) + self.label_smoothing / 2
        if self.label_weights is None:
            losses = nn.functional.binary_cross_entropy_with_logits(prediction, smooth, reduction="none")
            return (losses * mask).sum() / mask.sum()
        no, yes = self.label_weights.to(prediction.dtype).unbind()
        losses = nn.functional.binary_cross_entropy_with_logits(
            prediction, smooth, pos_weight=yes / no, reduction="none"
        )
        return (losses * no * mask).sum() / self.num_terms(target)

    def num_terms(self, target: Tensor) -> Tensor:
        return self._weights(target).sum()

    def _weights(self, target: Tensor) -> Tensor:
        """Return the weight of each label, 0 for a missing one, [batch, num_labels]."""
        mask = target >= 0
        if self.label_weights is None:
            return mask
        no, yes = self.label_weights.unbind()
        return torch.where(target == 1, yes, no) * mask

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.decisions import MacroLabelF1
        from mtlrun.tasks.metrics.ranking import AUROC, AveragePrecision

        return {
            "auroc": AUROC(),
            "map": AveragePrecision(),
            "f1": MacroLabelF1(self.num_labels, average="macro", ignore_index=-1, validate_args=False),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction, torch.where(target >= 0, target.long(), -1)

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics:
        logits, labels = self.metric_inputs(prediction, target)
        return join(
            rankings(logits, labels, auroc="auroc", average_precision="map"),
            macro_f1_of_labels((logits > 0).long(), labels),
        )

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        has_no, has_yes = self.target_sums(target) > 0
        if not has_yes.any():
            return dict.fromkeys(["auroc", "map", "f1"], "no sample has any of the labels")
        return {} if (has_no & has_yes).any() else {"auroc": "each label is the same in all samples"}

    def narrowed_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        has_no, has_yes = self.target_sums(target) > 0
        left_out = {"auroc": ~(has_no & has_yes), "map": ~has_yes}
        return {
            metric: _list_labels(mask, names)
            for metric, mask in left_out.items()
            if mask.any() and metric not in self.undefined_metrics(target, names)
        }

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        correct = (prediction > 0) == (target > 0)
        return (correct * self._weights(target)).sum() / self.num_terms(target)

    def target_sums(self, target: Tensor) -> Tensor:
        """Return how often each label is 0, and how often 1, [2, num_labels]."""
        return torch.stack([(target == 0).sum(dim=0), (target == 1).sum(dim=0)])

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        no, yes = log_frequencies(sums)
        log_odds: Tensor = yes - no
        return log_odds.expand(len(target), -1)

    def decode(self, prediction: Tensor) -> Decoded:
        return Decoded((prediction > 0).long(), prediction.double().sigmoid())

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the probabilities of no and yes of each label, [n, num_labels, 2]."""
        return no_and_yes(prediction)

    def from_average(self, average: Tensor) -> Tensor:
        return log_odds(average)

    def observed(self, target: Tensor) -> Tensor:
        return torch.where(target >= 0, target, -1).long()

    def observations(self, target: Tensor) -> Tensor:
        return torch.where(target >= 0, target.double(), torch.nan)

    def check_targets(self, target: Tensor) -> None:
        if target.dim() != 2 or target.shape[1] != self.num_labels:
            raise ValueError(
                f"targets must be of shape [samples, {self.num_labels}], a column for each label, "
                f"found {tuple(target.shape)}"
            )
        check_binary_labels(target)


def _list_labels(mask: Tensor, names: Sequence[str]) -> str:
    """Return the names, or else the numbers, of the labels in a mask [num_labels]: a few of them, and how many more."""
    labels = [item(names[index]) if names else str(index) for index in mask.nonzero().flatten().tolist()]
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return ", ".join(labels[:_LISTED]) + more
