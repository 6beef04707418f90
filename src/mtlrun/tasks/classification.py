"""Classification into one of several classes."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtlrun.tasks.base import HeadFactory, Task

MISSING = -1


class Classification(Task):
    """One of `num_classes` classes; cross-entropy; accuracy and macro F1. A target of -1 is a missing label.

    Predictions are logits [batch, num_classes], targets class indices [batch].

    Args:
        num_classes: number of classes, 2 or more.
        label_smoothing: share of the target's mass that is spread over all classes, in [0, 1).
        lr, weight, head: see `Task`.
    """

    main_metric = "accuracy"
    nonnegative_loss = True

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        *,
        lr: float = 1e-3,
        weight: float = 1.0,
        head: HeadFactory | None = None,
    ) -> None:
        super().__init__(lr=lr, weight=weight, head=head)
        if num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, found {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), found {label_smoothing}")
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labelled(self, target: Tensor) -> Tensor:
        return target != MISSING

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(prediction, target, label_smoothing=self.label_smoothing)

    def metrics(self) -> dict[str, Metric]:
        return {
            "accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False),
            "f1": MulticlassF1Score(self.num_classes, average="macro", validate_args=False),
        }

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.argmax(dim=1) == target).float().mean()

    def check_targets(self, target: Tensor) -> None:
        if target.dtype != torch.int64:
            raise ValueError(f"targets must be class indices of type int64, found {target.dtype}")
        if len(target) and not (int(target.min()) >= MISSING and int(target.max()) < self.num_classes):
            raise ValueError(
                f"targets must be in 0..{self.num_classes - 1}, or -1 where a label is missing, "
                f"found {int(target.min())}..{int(target.max())}"
            )
