"""Semantic segmentation: a class for each pixel."""

from typing import TYPE_CHECKING, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import Classes, ClassIndex, checked
from mtlrun.tasks.averaging import AveragesPredictions, log
from mtlrun.tasks.base import DecodesMaps, Directions, DrawsPictures, Legend, log_frequencies
from mtlrun.tasks.class_task import ClassTaskOptions, ClassWeightedTask
from mtlrun.tasks.dense import check_same_pixels, describe_pixel, find_pixel
from mtlrun.tasks.losses.class_weights import ClassWeights
from mtlrun.tasks.losses.focal import focal_losses

if TYPE_CHECKING:
    from torchmetrics import Metric


class Segmentation(ClassWeightedTask, AveragesPredictions, DecodesMaps, DrawsPictures):
    """One of `num_classes` classes at each pixel: cross-entropy by default; mean IoU and pixel accuracy.

    Predictions are logits [batch, num_classes, height, width]; targets are class indices [batch, height, width]. A
    pixel of `ignore_index` has no label; a sample is labeled if any of its pixels is. The labels of which the losses
    are means, and which class weights weight, are those of the pixels.

    Metrics, over all labeled pixels of the split:
        miou: the mean over the classes of TP / (TP + FP + FN), from one confusion matrix for the whole split. A class
            that is neither in the targets nor predicted is left out of the mean.
        pixel_accuracy: fraction of the pixels that are classified correctly.

    Source: the definitions of Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019), in the revised
    code of the authors, which LibMTL shares.

    Args:
        num_classes: number of classes, 2 or more.
        ignore_index: target value of a pixel without a label.
        class_weights: `none`; `balanced`, which gives each class the same fraction of the loss, by its number of pixels
            in the training split; or a number > 0 for each class. See `ClassWeightedTask`; these are the alpha of the
            focal loss.
        options: see `ClassTask`.
    """

    main_metric = "miou"
    metric_directions: ClassVar[Directions] = {"miou": "max", "pixel_accuracy": "max"}
    dense = True
    distribution_dim = 1

    @checked
    def __init__(
        self,
        num_classes: Classes,
        ignore_index: ClassIndex = -1,
        class_weights: ClassWeights = "none",
        **options: Unpack[ClassTaskOptions],
    ) -> None:
        super().__init__(**options)
        self.set_classes(num_classes, class_weights, ignore_index)

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labeled(self, target: Tensor) -> Tensor:
        return (target != self.ignore_index).flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        check_same_pixels(prediction, target)
        # Flattened to one row per pixel: unlike the loss on maps, this has a deterministic kernel on GPUs.
        logits, classes = prediction.movedim(1, -1).flatten(0, -2), target.flatten()
        weights = self.class_weights_like(prediction)
        if self.criterion == "focal":
            losses = focal_losses(logits, classes, self.focal_gamma, weights, self.ignore_index)
            return (losses.sum() / self.num_terms(target)).to(prediction.dtype)
        return nn.functional.cross_entropy(
            logits, classes, weights, ignore_index=self.ignore_index, label_smoothing=self.label_smoothing
        )

    def num_terms(self, target: Tensor) -> Tensor:
        return self._pixel_weights(target).sum()

    def _pixel_weights(self, target: Tensor) -> Tensor:
        """Return the class weight of each pixel's label, 0 without one, [batch, height, width].

        Without class weights, this is a mask of the labeled pixels.
        """
        mask = target != self.ignore_index
        return mask if self.class_weights is None else self.class_weights[torch.where(mask, target, 0)] * mask

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        colors = self._colors().to(target.device)
        labels = torch.where((target >= 0) & (target < self.num_classes), target, self.num_classes)
        return tuple(colors[classes].permute(0, 3, 1, 2) for classes in (prediction.argmax(dim=1), labels))  # type: ignore[return-value]

    def legend(self) -> Legend:
        words = [*(f"class {label}" for label in range(self.num_classes)), "no label"]
        return [
            (text, (red, green, blue)) for text, (red, green, blue) in zip(words, self._colors().tolist(), strict=True)
        ]

    def _colors(self) -> Tensor:
        """Return the color of each class, and that of pixels without a label, [num_classes + 1, 3]."""
        hues = torch.arange(self.num_classes) * (5 / self.num_classes)  # red to magenta, and dark
        colors = torch.stack([(1 - (hues - center).abs() / 2).clamp(0, 1) for center in (0.0, 2.0, 4.0)], dim=1)
        return torch.cat([colors, torch.zeros(1, 3)])

    def metrics(self) -> "dict[str, Metric]":
        from mtlrun.tasks.metrics.confusion import FractionRight, MeanIoU

        classes, ignored = self.num_classes, self.ignore_index
        return {"miou": MeanIoU(classes, ignored), "pixel_accuracy": FractionRight(classes, ignored)}

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.argmax(dim=1), target

    def decode_map(self, prediction: Tensor) -> Tensor:
        return prediction.argmax(dim=1)

    def performance(self, prediction: Tensor, target: Tensor) -> Tensor:
        correct = prediction.argmax(dim=1) == target
        return (correct * self._pixel_weights(target)).sum() / self.num_terms(target)

    def constant_prediction(self, sums: Tensor, target: Tensor) -> Tensor:
        return log_frequencies(sums)[:, None, None].expand(len(target), -1, *target.shape[-2:])

    def to_average(self, prediction: Tensor) -> Tensor:
        """Return the probabilities of the classes at each pixel, [n, num_classes, height, width]."""
        return prediction.double().softmax(dim=1)

    def from_average(self, average: Tensor) -> Tensor:
        return log(average).float()

    def check_targets(self, target: Tensor) -> None:
        if target.dtype != torch.int64:
            raise ValueError(f"targets must be class indices of type int64, found {target.dtype}")
        if target.dim() != 3:
            raise ValueError(f"targets must be of shape [samples, height, width], found {tuple(target.shape)}")
        pixel = find_pixel(
            target, lambda labels: ((labels < 0) | (labels >= self.num_classes)) & (labels != self.ignore_index)
        )
        if pixel is not None:
            raise ValueError(
                f"targets must be in 0..{self.num_classes - 1}, or {self.ignore_index} where a pixel has no label, "
                f"found {int(target[pixel])} {describe_pixel(pixel)}"
            )
