"""Several yes-or-no labels that one head predicts, as one task."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MultilabelF1Score

from mtlrun.tasks.base import HeadFactory, TaskWeight
from mtlrun.tasks.binary import check_answers
from mtlrun.tasks.class_task import ClassTask
from mtlrun.tasks.losses.focal import Criterion, binary_focal_losses
from mtlrun.tasks.metrics.ranking import AUROC, AveragePrecision


class MultiLabel(ClassTask):
    """Yes or no for each of `num_labels` labels; binary cross-entropy by default; macro ROC-AUC, mAP and macro F1.

    Predictions are logits [batch, num_labels], targets 0 or 1, integers or floating-point numbers, of the same shape. A
    target of -1 or NaN is a missing label; a sample counts as labeled if any of its labels is there. The loss is the
    mean over the labels that are there.

    Metrics, each computed for every label over all samples of the split that carry it; then the mean over the labels:
        auroc: area under the ROC curve. A label that is the same in all samples is left out of the mean.
        map: average precision. A label that is 1 in no sample is left out of the mean.
        f1: where a probability above 1/2 is a yes; 0 for a label that is neither there nor predicted.

    Source of `focal`: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017).

    Args:
        num_labels: number of labels, 2 or more.
        label_smoothing: share of the target's mass that is spread over both answers, in [0, 1).
        criterion: `cross_entropy`, or `focal`, in which a label counts (1 - p)^focal_gamma times, p being the
            probability that its label is predicted with; without label smoothing.
        focal_gamma: >= 0, with `focal`; 0 is cross-entropy.
        lr, weight, head: see `Task`.
    """

    main_metric = "auroc"

    def __init__(
        self,
        num_labels: int,
        label_smoothing: float = 0.0,
        criterion: Criterion = "cross_entropy",
        focal_gamma: float = 2.0,
        *,
        lr: float = 1e-3,
        weight: TaskWeight = 1.0,
        head: HeadFactory | None = None,
    ) -> None:
        if num_labels < 2:
            raise ValueError(f"num_labels must be >= 2, found {num_labels}; one label is a BinaryClassification")
        super().__init__(
            num_labels, label_smoothing=label_smoothing, criterion=criterion, focal_gamma=focal_gamma,
            lr=lr, weight=weight, head=head,
        )  # fmt: skip
        self.num_labels = num_labels

    @property
    def output_size(self) -> int:
        return self.num_labels

    def labeled(self, target: Tensor) -> Tensor:
        return (target >= 0).any(dim=1)  # NaN is not >= 0

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        there = target >= 0
        # A NaN that is multiplied by zero afterwards is still one: it is replaced first.
        answer = torch.where(there, target, 0).to(prediction.dtype)
        if self.criterion == "focal":
            losses = binary_focal_losses(prediction, answer, self.focal_gamma)
        else:
            smooth = answer * (1 - self.label_smoothing) + self.label_smoothing / 2
            losses = nn.functional.binary_cross_entropy_with_logits(prediction, smooth, reduction="none")
        return (losses * there).sum() / there.sum()

    def num_terms(self, target: Tensor) -> Tensor:
        return (target >= 0).sum()

    def metrics(self) -> dict[str, Metric]:
        return {
            "auroc": AUROC(),
            "map": AveragePrecision(),
            "f1": MultilabelF1Score(self.num_labels, average="macro", ignore_index=-1, validate_args=False),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # Probabilities in float64, as in BinaryClassification.
        return prediction.double().sigmoid(), torch.where(target >= 0, target.long(), -1)

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = ((prediction > 0) == (target > 0)) & (target >= 0)
        return right.sum() / self.num_terms(target)

    def check_targets(self, target: Tensor) -> None:
        if target.dim() != 2 or target.shape[1] != self.num_labels:
            raise ValueError(
                f"targets must be of shape [samples, {self.num_labels}], a column for each label, "
                f"found {tuple(target.shape)}"
            )
        check_answers(target)
