"""Semantic segmentation: a class for each pixel."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from mtlrun.tasks.base import HeadFactory, TaskWeight
from mtlrun.tasks.class_task import ClassTask
from mtlrun.tasks.dense import at, check_same_pixels, find_pixel
from mtlrun.tasks.losses.class_weights import ClassWeights, balanced_weights
from mtlrun.tasks.losses.focal import Criterion, focal_losses


class Segmentation(ClassTask):
    """One of `num_classes` classes at each pixel; cross-entropy by default; mean IoU and pixel accuracy.

    Predictions are logits [batch, num_classes, height, width], targets class indices [batch, height, width]. A pixel of
    `ignore_index` has no label; a sample counts as labeled if any of its pixels is. With class weights, loss and
    `performance` are weighted means, divided by the sum of the pixels' weights; the metrics are not weighted.

    Metrics, over all labeled pixels of the split:
        miou: the mean over the classes of TP / (TP + FP + FN), from one confusion matrix for the whole split. A class
            that is neither in the targets nor predicted is left out of the mean.
        pixel_accuracy: share of the pixels that are classified right.

    Source: the definitions of Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019), in the revised
    code of the authors, which LibMTL shares. `focal`: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017),
    for several classes; class weights are its alpha, and the factors (1 - p)^focal_gamma are not divided by their sum.

    Args:
        num_classes: number of classes, 2 or more.
        ignore_index: what stands at a pixel without a label.
        label_smoothing: share of the target's mass that is spread over all classes, in [0, 1).
        class_weights: `none`; `balanced`, which gives each class the same share of the loss, by its number of pixels in
            the training split; or a number > 0 for each class.
        criterion: `cross_entropy`, or `focal`, in which a pixel counts (1 - p)^focal_gamma times, p being the
            probability that its label is predicted with; without label smoothing.
        focal_gamma: >= 0, with `focal`; 0 is cross-entropy.
        lr, weight, head: see `Task`.
    """

    main_metric = "miou"
    dense = True

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = -1,
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
        self.ignore_index = ignore_index

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labeled(self, target: Tensor) -> Tensor:
        return (target != self.ignore_index).flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        check_same_pixels(prediction, target)
        # One row per pixel: unlike the loss on maps, this one has a deterministic kernel on GPUs.
        rows, classes = prediction.movedim(1, -1).flatten(0, -2), target.flatten()
        weights = self.weights_for(prediction)
        if self.criterion == "focal":
            losses = focal_losses(rows, classes, self.focal_gamma, weights, self.ignore_index)
            return (losses.sum() / self.num_terms(target)).to(prediction.dtype)
        return nn.functional.cross_entropy(
            rows, classes, weights, ignore_index=self.ignore_index, label_smoothing=self.label_smoothing
        )

    def num_terms(self, target: Tensor) -> Tensor:
        return self._pixel_weights(target).sum()

    def _pixel_weights(self, target: Tensor) -> Tensor:
        """Return how much each pixel counts, in the shape of `target`; without class weights, whether it does."""
        there = target != self.ignore_index
        return there if self.class_weights is None else self.class_weights[torch.where(there, target, 0)] * there

    def fit(self, targets: Iterable[Tensor]) -> None:
        self.class_weights = balanced_weights(targets, self.num_classes, self.ignore_index)

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        hues = torch.arange(self.num_classes, device=target.device) * (5 / self.num_classes)  # red to magenta, and dark
        colors = torch.stack([(1 - (hues - centre).abs() / 2).clamp(0, 1) for centre in (0.0, 2.0, 4.0)], dim=1)
        colors = torch.cat([colors, torch.zeros(1, 3, device=target.device)])  # the last one: no label
        true = torch.where((target >= 0) & (target < self.num_classes), target, self.num_classes)
        return tuple(colors[classes].permute(0, 3, 1, 2) for classes in (prediction.argmax(dim=1), true))  # type: ignore[return-value]

    def metrics(self) -> dict[str, Metric]:
        classes, ignored = self.num_classes, self.ignore_index
        return {
            "miou": MulticlassJaccardIndex(classes, average="macro", ignore_index=ignored, validate_args=False),
            "pixel_accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=ignored, validate_args=False),
        }

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.argmax(dim=1), target

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = prediction.argmax(dim=1) == target
        return (right * self._pixel_weights(target)).sum() / self.num_terms(target)

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
