"""Classification into one of several classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Classes, checked
from mtlrun.tasks.averaging import AveragesPredictions, log
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
from mtlrun.tasks.losses.focal import focal_losses
from mtlrun.tasks.resampling.base import ResampledMetrics, join
from mtlrun.tasks.resampling.decisions import accuracy, balanced_accuracy, decisions, macro_f1, matthews
from mtlrun.tasks.resampling.probabilities import probabilities

if TYPE_CHECKING:
    from torchmetrics import Metric

MISSING = -1


class Classification(ClassWeightedTask, DecodesPredictions, AveragesPredictions, GeneralizedLinear):
    """One of `num_classes` classes: cross-entropy by default; decisions and probabilities are evaluated.

    Predictions are logits [batch, num_classes]; targets are class indices [batch], -1 for a missing label.

    Metrics, over all labeled samples of the split:
        accuracy: fraction of the samples that are classified correctly.
        f1: mean of the F1 of each class; a class that is neither in the labels nor predicted is left out.
        balanced_accuracy: mean over the classes of the fraction of their samples that are classified correctly; a class
            without any is left out.
        mcc: Matthews correlation coefficient; NaN if all labels are the same.
        log_loss: mean of minus the logarithm of the probability of the label; the loss without class weights, smoothing
            and focal factor.
        ece: expected calibration error: how far the probability of the predicted class is from how often that is right,
            in 15 bins.

    Args:
        num_classes: number of classes, 2 or more.
        class_weights: `none`; `balanced`, which gives each class the same fraction of the loss, by its frequency in the
            training split; or a number > 0 for each class. See `ClassWeightedTask`; these are the alpha of the focal
            loss.
        options: see `ClassTask`.
    """

    main_metric = "accuracy"
    metric_directions: ClassVar[Directions] = {
        "accuracy": "max",
        "f1": "max",
        "balanced_accuracy": "max",
        "mcc": "max",
        "log_loss": "min",
        "ece": "min",
    }
    family: ClassVar[Family] = "categorical"
    distribution_dim = 1

    @checked
    def __init__(
        self, num_classes: Classes, class_weights: ClassWeights = "none", **options: Unpack[ClassTaskOptions]
    ) -> None:
        super().__init__(**options)
        self.set_classes(num_classes, class_weights, MISSING)

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labeled(self, target: Tensor) -> Tensor:
        return target != MISSING

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        weights = self.class_weights_like(prediction)
        if self.criterion == "focal":
            losses = focal_losses(prediction, target, self.focal_gamma, weights)
            return (losses.sum() / self.num_terms(target)).to(prediction.dtype)
        return nn.functional.cross_entropy(prediction, target, weights, label_smoothing=self.label_smoothing)

    def num_terms(self, target: Tensor) -> int | Tensor:
        return len(target) if self.class_weights is None else self.class_weights[target].sum()

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.decisions import Accuracy, BalancedAccuracy, MacroF1, Matthews
        from mtlrun.tasks.metrics.probabilities import CalibrationError, LogLoss

        return {
            "accuracy": Accuracy(self.num_classes),
            "f1": MacroF1(self.num_classes),
            "balanced_accuracy": BalancedAccuracy(self.num_classes),
            "mcc": Matthews(self.num_classes),
            "log_loss": LogLoss(),
            "ece": CalibrationError(),
        }

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        why = describe_equal(target, names)
        return {} if why is None else {"mcc": why}

    def resampled_metrics(self, prediction: Tensor, target: Tensor) -> ResampledMetrics:
        metrics = {"accuracy": accuracy, "f1": macro_f1, "balanced_accuracy": balanced_accuracy, "mcc": matthews}
        return join(
            decisions(prediction.argmax(dim=1), target, self.num_classes, metrics), probabilities(prediction, target)
        )

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        correct = (prediction.argmax(dim=1) == target).float()
        if self.class_weights is not None:
            correct = correct * self.class_weights[target]
        return correct.sum() / self.num_terms(target)

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        return log_frequencies(sums).expand(len(target), -1)

    def decode(self, prediction: Tensor) -> Decoded:
        return Decoded(prediction.argmax(dim=1), prediction.double().softmax(dim=1))

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the probabilities of the classes, [n, num_classes]."""
        return prediction.double().softmax(dim=1)

    def from_average(self, average: Tensor) -> Tensor:
        return log(average).float()

    def observed(self, target: Tensor) -> Tensor:
        return target

    def observations(self, target: Tensor) -> Tensor:
        return target

    def check_targets(self, target: Tensor) -> None:
        check_indices(target, self.num_classes, "class indices")


def check_indices(target: Tensor, count: int, content: str) -> None:
    """Raise ValueError, with the sample, if a target is neither in 0..count-1 nor missing.

    Args:
        target: int64 [samples], if it is valid.
        count: number of classes.
        content: what the targets are, for the error message.
    """
    if target.dtype != torch.int64:
        raise ValueError(f"targets must be {content} of type int64, found {target.dtype}")
    if target.dim() != 1:
        raise ValueError(f"targets must be one number per sample, found shape {tuple(target.shape)}")
    wrong = ((target < MISSING) | (target >= count)).nonzero()
    if len(wrong):
        sample = int(wrong[0])
        raise ValueError(
            f"targets must be in 0..{count - 1}, or -1 where a label is missing, "
            f"found {int(target[sample])} at sample {sample}"
        )
