"""Binary classification: one yes-or-no label."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score

from mtlrun.tasks.base import HeadFactory, TaskWeight
from mtlrun.tasks.class_task import ClassTask
from mtlrun.tasks.losses.class_weights import ClassWeights, balanced_weights
from mtlrun.tasks.losses.focal import Criterion, binary_focal_losses
from mtlrun.tasks.metrics.ranking import AUROC, AveragePrecision


class BinaryClassification(ClassTask):
    """Yes or no; binary cross-entropy by default; ROC-AUC, average precision, accuracy and F1 of yes.

    Predictions are one logit per sample, [batch, 1], targets 0 or 1, integers or floating-point numbers, [batch]. A
    target of -1 or NaN is a missing label. This is a `Classification` of two classes whose logits are 0 and the
    predicted one: the losses have the same values, smoothing and class weights included.

    Metrics, over all labeled samples of the split:
        auroc: area under the ROC curve; NaN where all labels are the same.
        average_precision: sum over the thresholds of (R_n - R_(n-1)) P_n; NaN where no label is 1.
        accuracy, f1: where a probability above 1/2 is a yes.

    Source of `focal`: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017). Their alpha is
    `class_weights=[1 - alpha, alpha]`.

    Args:
        label_smoothing: share of the target's mass that is spread over both answers, in [0, 1).
        class_weights: `none`; `balanced`, which gives both answers the same share of the loss, by their frequency in
            the training split; or two numbers > 0, for 0 and for 1. Loss and `performance` are then weighted means,
            divided by the sum of the samples' weights (which PyTorch's `pos_weight` is not); the metrics have no
            weights.
        criterion: `cross_entropy`, or `focal`, in which a sample counts (1 - p)^focal_gamma times, p being the
            probability that its label is predicted with; without label smoothing.
        focal_gamma: >= 0, with `focal`; 0 is cross-entropy.
        lr, weight, head: see `Task`.
    """

    main_metric = "auroc"

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        criterion: Criterion = "cross_entropy",
        focal_gamma: float = 2.0,
        *,
        lr: float = 1e-3,
        weight: TaskWeight = 1.0,
        head: HeadFactory | None = None,
    ) -> None:
        super().__init__(
            2, label_smoothing=label_smoothing, criterion=criterion, focal_gamma=focal_gamma,
            class_weights=class_weights, lr=lr, weight=weight, head=head,
        )  # fmt: skip

    @property
    def output_size(self) -> int:
        return 1

    def labeled(self, target: Tensor) -> Tensor:
        return target.reshape(len(target)) >= 0  # which NaN is not

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        logit = prediction.squeeze(1)
        if self.criterion == "focal":
            losses = binary_focal_losses(logit, target.reshape(len(target)), self.focal_gamma)
            return ((losses * self._sample_weights(target)).sum() / self.num_terms(target)).to(logit.dtype)
        smooth = target.reshape(len(target)).to(logit.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = self.weights_for(logit)
        if weights is None:
            return nn.functional.binary_cross_entropy_with_logits(logit, smooth)
        ratio = weights[1] / weights[0]
        total = nn.functional.binary_cross_entropy_with_logits(logit, smooth, pos_weight=ratio, reduction="sum")
        return weights[0] * total / self.num_terms(target)

    def num_terms(self, target: Tensor) -> int | Tensor:
        return len(target) if self.class_weights is None else self._sample_weights(target).sum()

    def _sample_weights(self, target: Tensor) -> Tensor:
        """Return how much each sample counts, [batch]."""
        answer = target.reshape(len(target)).long()
        return torch.ones_like(answer) if self.class_weights is None else self.class_weights[answer]

    def fit(self, targets: Iterable[Tensor]) -> None:
        self.class_weights = balanced_weights(targets, 2)

    def metrics(self) -> dict[str, Metric]:
        return {
            "auroc": AUROC(),
            "average_precision": AveragePrecision(),
            "accuracy": BinaryAccuracy(validate_args=False),
            "f1": BinaryF1Score(validate_args=False),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # Probabilities, since torchmetrics would guess by each batch whether it sees logits; in float64, where large
        # logits do not become the same probability.
        return prediction.squeeze(1).double().sigmoid(), target.reshape(len(target)).long()

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = (prediction.squeeze(1) > 0) == (target.reshape(len(target)) > 0)
        return (right * self._sample_weights(target)).sum() / self.num_terms(target)

    def check_targets(self, target: Tensor) -> None:
        if target.numel() != len(target):
            raise ValueError(f"targets must be one number per sample, found shape {tuple(target.shape)}")
        check_answers(target.reshape(len(target)))


def check_answers(target: Tensor) -> None:
    """Raise ValueError, with the place, where something is neither 0 nor 1 nor missing; target: [samples, ...]."""
    number = target.double()
    wrong = ((number != 0) & (number != 1) & (number != -1) & ~number.isnan()).nonzero()
    if len(wrong):
        sample, *label = wrong[0].tolist()
        raise ValueError(
            "targets must be 0 or 1, or -1 or NaN where a label is missing, "
            f"found {float(number[tuple(wrong[0])]):g} at sample {sample}" + "".join(f", label {at}" for at in label)
        )
