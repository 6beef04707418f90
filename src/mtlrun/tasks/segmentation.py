"""Semantic segmentation: a class for each pixel."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from mtlrun.tasks.base import HeadFactory, Task
from mtlrun.tasks.dense import at, check_same_pixels, find_pixel


class Segmentation(Task):
    """One of `num_classes` classes at each pixel; cross-entropy; mean IoU and pixel accuracy.

    Predictions are logits [batch, num_classes, height, width], targets class indices [batch, height, width]. A pixel of
    `ignore_index` has no label; a sample counts as labelled if any of its pixels is.

    Metrics, over all labelled pixels of the split:
        miou: the mean over the classes of TP / (TP + FP + FN), from one confusion matrix for the whole split. A class
            that is neither in the targets nor predicted is left out of the mean.
        pixel_accuracy: share of the pixels that are classified right.

    Source: the definitions of Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019), in the revised
    code of the authors, which LibMTL shares.

    Args:
        num_classes: number of classes, 2 or more.
        ignore_index: what stands at a pixel without a label.
        label_smoothing: share of the target's mass that is spread over all classes, in [0, 1).
        lr, weight, head: see `Task`.
    """

    main_metric = "miou"
    nonnegative_loss = True
    dense = True

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = -1,
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
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labelled(self, target: Tensor) -> Tensor:
        return (target != self.ignore_index).flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        check_same_pixels(prediction, target)
        # One row per pixel: unlike the loss on maps, this one has a deterministic kernel on GPUs.
        return nn.functional.cross_entropy(
            prediction.movedim(1, -1).flatten(0, -2),
            target.flatten(),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def num_terms(self, target: Tensor) -> Tensor:
        return (target != self.ignore_index).sum()

    def metrics(self) -> dict[str, Metric]:
        classes, ignored = self.num_classes, self.ignore_index
        return {
            "miou": MulticlassJaccardIndex(classes, average="macro", ignore_index=ignored, validate_args=False),
            "pixel_accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=ignored, validate_args=False),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.argmax(dim=1), target

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = (prediction.argmax(dim=1) == target) & (target != self.ignore_index)
        return right.sum() / self.num_terms(target)

    def check_targets(self, target: Tensor) -> None:
        if target.dtype != torch.int64:
            raise ValueError(f"targets must be class indices of type int64, found {target.dtype}")
        if target.dim() != 3:
            raise ValueError(f"targets must be of shape [samples, height, width], found {tuple(target.shape)}")
        place = find_pixel(target, lambda part: ((part < 0) | (part >= self.num_classes)) & (part != self.ignore_index))
        if place is not None:
            raise ValueError(
                f"targets must be in 0..{self.num_classes - 1}, or {self.ignore_index} where a pixel has no label, "
                f"found {int(target[place])} {at(place)}"
            )
