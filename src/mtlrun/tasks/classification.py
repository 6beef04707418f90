"""Classification into one of several classes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtlrun.tasks.base import HeadFactory, TaskWeight
from mtlrun.tasks.class_task import ClassTask
from mtlrun.tasks.losses.class_weights import ClassWeights, balanced_weights
from mtlrun.tasks.losses.focal import Criterion, focal_losses

MISSING = -1


class Classification(ClassTask):
    """One of `num_classes` classes; cross-entropy by default; accuracy and macro F1. A target of -1 is a missing label.

    Predictions are logits [batch, num_classes], targets class indices [batch]. With class weights, loss and
    `performance` are weighted means, divided by the sum of the samples' weights; the metrics are not weighted.

    Source of `focal`: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), for several classes. Class
    weights are its alpha; the factors (1 - p)^focal_gamma are not divided by their sum.

    Args:
        num_classes: number of classes, 2 or more.
        label_smoothing: share of the target's mass that is spread over all classes, in [0, 1).
        class_weights: `none`; `balanced`, which gives each class the same share of the loss, by its frequency in the
            training split; or a number > 0 for each class.
        criterion: `cross_entropy`, or `focal`, in which a sample counts (1 - p)^focal_gamma times, p being the
            probability that its label is predicted with; without label smoothing.
        focal_gamma: >= 0, with `focal`; 0 is cross-entropy.
        lr, weight, head: see `Task`.
    """

    main_metric = "accuracy"

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        criterion: Criterion = "cross_entropy",
        focal_gamma: float = 2.0,
        *,
        lr: float = 1e-3,
        weight: TaskWeight = 1.0,
        head: HeadFactory | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, found {num_classes}")
        super().__init__(
            num_classes, label_smoothing=label_smoothing, criterion=criterion, focal_gamma=focal_gamma,
            class_weights=class_weights, lr=lr, weight=weight, head=head,
        )  # fmt: skip
        self.num_classes = num_classes

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labeled(self, target: Tensor) -> Tensor:
        return target != MISSING

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        weights = self.weights_for(prediction)
        if self.criterion == "focal":
            losses = focal_losses(prediction, target, self.focal_gamma, weights)
            return (losses.sum() / self.num_terms(target)).to(prediction.dtype)
        return nn.functional.cross_entropy(prediction, target, weights, label_smoothing=self.label_smoothing)

    def num_terms(self, target: Tensor) -> int | Tensor:
        return len(target) if self.class_weights is None else self.class_weights[target].sum()

    def fit(self, targets: Iterable[Tensor]) -> None:
        self.class_weights = balanced_weights(targets, self.num_classes)

    def metrics(self) -> dict[str, Metric]:
        return {
            "accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False),
            "f1": MulticlassF1Score(self.num_classes, average="macro", validate_args=False),
        }

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = (prediction.argmax(dim=1) == target).float()
        if self.class_weights is not None:
            right = right * self.class_weights[target]
        return right.sum() / self.num_terms(target)

    def check_targets(self, target: Tensor) -> None:
        check_indices(target, self.num_classes, "class indices")


def check_indices(target: Tensor, count: int, what: str) -> None:
    """Raise ValueError, with the sample, where something is neither one of 0..count-1 nor missing.

    Args:
        target: what should be int64 [samples].
        count: number of classes.
        what: these are, in words.
    """
    if target.dtype != torch.int64:
        raise ValueError(f"targets must be {what} of type int64, found {target.dtype}")
    if target.dim() != 1:
        raise ValueError(f"targets must be one number per sample, found shape {tuple(target.shape)}")
    wrong = ((target < MISSING) | (target >= count)).nonzero()
    if len(wrong):
        sample = int(wrong[0])
        raise ValueError(
            f"targets must be in 0..{count - 1}, or -1 where a label is missing, "
            f"found {int(target[sample])} at sample {sample}"
        )
