"""Binary classification: one yes-or-no label."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Written
from mtlrun.tasks.averaging import AveragesPredictions, log_odds, no_and_yes
from mtlrun.tasks.base import (
    Decoded,
    DecodesPredictions,
    Directions,
    Family,
    GeneralizedLinear,
    describe_equal,
    log_frequencies,
)
from mtlrun.tasks.class_task import ClassTaskOptions, ClassWeightedTask
from mtlrun.tasks.losses.class_weights import ClassWeights
from mtlrun.tasks.losses.focal import binary_focal_losses
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.decisions import accuracy, balanced_accuracy, decisions, f1_of_yes, matthews
from mtlrun.tasks.resampling.probabilities import probabilities
from mtlrun.tasks.resampling.rankings import rankings

if TYPE_CHECKING:
    from torchmetrics import Metric


class BinaryClassification(ClassWeightedTask, DecodesPredictions, AveragesPredictions, GeneralizedLinear):
    """Yes or no: binary cross-entropy by default; ranking, decisions and probabilities are evaluated.

    Predictions are one logit per sample, [batch, 1]; targets are 0 or 1, integers or floating-point numbers, [batch]. A
    target of -1 or NaN is a missing label. This is a `Classification` into two classes with the logits 0 and the
    predicted one: the losses have the same values, with smoothing and class weights too.

    Metrics, over all labeled samples of the split:
        auroc: area under the ROC curve; NaN if all labels are the same.
        average_precision: sum over the thresholds of (R_n - R_(n-1)) P_n; NaN if no label is 1.
        accuracy, f1: with a probability above 1/2 as yes; F1 is NaN if no label is 1.
        balanced_accuracy: mean of the accuracy on labels 0 and on labels 1.
        mcc: Matthews correlation coefficient; NaN if all labels are the same.
        log_loss: mean of minus the logarithm of the probability of the label; the loss without class weights, smoothing
            and focal factor.
        ece: expected calibration error: how far frequencies of yes are from predicted probabilities, in 15 bins.

    Args:
        positive: the label that is 1, which the dataset reads; None for its usual one.
        class_weights: `none`; `balanced`, which gives both labels the same fraction of the loss, by their frequency in
            the training split; or two numbers > 0, for 0 and for 1. See `ClassWeightedTask`; this is not PyTorch's
            `pos_weight`. The alpha of the focal loss is `class_weights=[1 - alpha, alpha]`.
        options: see `ClassTask`.
    """

    main_metric = "auroc"
    metric_directions: ClassVar[Directions] = {
        "auroc": "max",
        "average_precision": "max",
        "accuracy": "max",
        "f1": "max",
        "balanced_accuracy": "max",
        "mcc": "max",
        "log_loss": "min",
        "ece": "min",
    }
    family: ClassVar[Family] = "bernoulli"
    distribution_dim = -1

    def __init__(
        self,
        class_weights: ClassWeights = "none",
        positive: str | Written | None = None,
        **options: Unpack[ClassTaskOptions],
    ) -> None:
        super().__init__(**options)
        self.positive = positive
        self.set_classes(2, class_weights)

    @property
    def output_size(self) -> int:
        return 1

    def labeled(self, target: Tensor) -> Tensor:
        return target.reshape(len(target)) >= 0  # false for NaN

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        logit = prediction.squeeze(1)
        if self.criterion == "focal":
            losses = binary_focal_losses(logit, target.reshape(len(target)), self.focal_gamma)
            return ((losses * self._label_weights(target)).sum() / self.num_terms(target)).to(logit.dtype)
        smooth = target.reshape(len(target)).to(logit.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = self.class_weights_like(logit)
        if weights is None:
            return nn.functional.binary_cross_entropy_with_logits(logit, smooth)
        ratio = weights[1] / weights[0]
        total = nn.functional.binary_cross_entropy_with_logits(logit, smooth, pos_weight=ratio, reduction="sum")
        return weights[0] * total / self.num_terms(target)

    def num_terms(self, target: Tensor) -> int | Tensor:
        return len(target) if self.class_weights is None else self._label_weights(target).sum()

    def _label_weights(self, target: Tensor) -> Tensor:
        """Return the class weight of each sample's label, [batch]."""
        label = target.reshape(len(target)).long()
        return torch.ones_like(label) if self.class_weights is None else self.class_weights[label]

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.decisions import F1, Accuracy, BalancedAccuracy, Matthews
        from mtlrun.tasks.metrics.probabilities import CalibrationError, LogLoss
        from mtlrun.tasks.metrics.ranking import AUROC, AveragePrecision

        return {
            "auroc": AUROC(),
            "average_precision": AveragePrecision(),
            "accuracy": Accuracy(2),
            "f1": F1(2),
            "balanced_accuracy": BalancedAccuracy(2),
            "mcc": Matthews(2),
            "log_loss": LogLoss(),
            "ece": CalibrationError(),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.squeeze(1), target.reshape(len(target)).long()

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics:
        logit, label = self.metric_inputs(prediction, target)
        metrics = {"accuracy": accuracy, "f1": f1_of_yes, "balanced_accuracy": balanced_accuracy, "mcc": matthews}
        return join(
            rankings(logit, label, auroc="auroc", average_precision="average_precision"),
            decisions((logit > 0).long(), label, 2, metrics),
            probabilities(logit, label),
        )

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        label = target.reshape(len(target))
        why = describe_equal(label, names)
        if why is None:
            return {}
        undefined = ["auroc", "mcc"] if label[0] > 0 else ["auroc", "average_precision", "f1", "mcc"]
        return dict.fromkeys(undefined, why)

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        correct = (prediction.squeeze(1) > 0) == (target.reshape(len(target)) > 0)
        return (correct * self._label_weights(target)).sum() / self.num_terms(target)

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        no, yes = log_frequencies(sums)
        log_odds: Tensor = yes - no
        return log_odds.expand(len(target), 1)

    def decode(self, prediction: Tensor) -> Decoded:
        logit = prediction.squeeze(1)
        return Decoded((logit > 0).long(), logit.double().sigmoid())

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the probabilities of no and yes, [n, 1, 2]."""
        return no_and_yes(prediction)

    def from_average(self, average: Tensor) -> Tensor:
        return log_odds(average)

    def observed(self, target: Tensor) -> Tensor:
        return target.reshape(len(target), 1).long()

    def observations(self, target: Tensor) -> Tensor:
        return target.reshape(len(target), 1).double()

    def check_targets(self, target: Tensor) -> None:
        if target.numel() != len(target):
            raise ValueError(f"targets must be one number per sample, found shape {tuple(target.shape)}")
        check_binary_labels(target.reshape(len(target)))


def check_binary_labels(target: Tensor) -> None:
    """Raise ValueError, with the position, if a label is neither 0 nor 1 nor missing; target: [samples, ...]."""
    number = target.double()
    wrong = ((number != 0) & (number != 1) & (number != -1) & ~number.isnan()).nonzero()
    if len(wrong):
        sample, *label = wrong[0].tolist()
        raise ValueError(
            "targets must be 0 or 1, or -1 or NaN where a label is missing, "
            f"found {float(number[tuple(wrong[0])]):g} at sample {sample}"
            + "".join(f", label {index}" for index in label)
        )
