"""Object detection: boxes around the objects in an image, and the class of each."""

import colorsys
from collections.abc import Sequence
from typing import Annotated, ClassVar, Unpack

import torch
from torch import Tensor
from torchmetrics import Metric
from torchvision.utils import draw_bounding_boxes

from mtlrun.config.bounds import Bounds, FractionAboveZero, FractionBelowOne, Width, checked
from mtlrun.tasks.base import DecodesBoxes, DrawsPictures, Legend, Task, TaskOptions
from mtlrun.tasks.losses.boxes import detect, fcos_loss, image_size
from mtlrun.tasks.metrics.box_precision import MAX_DETECTIONS, BoxPrecision, check_available

_MIN_DRAWN_SCORE = 0.3  # detections with lower scores are not drawn


class Detection(Task, DecodesBoxes, DrawsPictures):
    """Boxes around objects of `num_classes` classes: the loss of FCOS; mean average precision.

    Predictions are those of `mtlrun.models.heads.DetectionHead`, [batch, locations, num_classes + 9]. Targets are
    float32 [batch, max_objects, 6]: x1, y1, x2, y2 in pixels, the class, and 1 for an object to be ignored
    ("difficult" in Pascal VOC, a crowd in COCO), else 0. Entries of class -1 are padding; an image with nothing else is
    labeled and shows no object. An image whose entries are all NaN is not labeled.

    The loss of an image is that of torchvision's FCOS: focal loss of the classes, GIoU loss of the boxes, cross-entropy
    of the centerness, each divided by the number of locations that are matched to an object. The loss is the mean over
    the images; torchvision divides by the number of matched locations in the whole batch instead, so that images with
    many of them count more. Unmatched locations within an ignored object have no loss of the classes.

    Metrics, by torchmetrics and pycocotools; ignored objects are passed as crowds: detecting one is neither right nor
    wrong.
        map50: mean over the classes of COCO's average precision at an IoU of 0.5, with 101 levels of recall.
        map: the same, averaged over IoUs of 0.5, 0.55, ..., 0.95.
        Classes without an object in the targets are left out of the mean; NaN if all are.

    Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019).

    Args:
        num_classes: number of classes, 1 or more, without the background.
        score_threshold: detections with lower scores are dropped, in [0, 1).
        nms_threshold: a detection is dropped if its IoU with a better one of its class is above this, in (0, 1].
        max_detections: how many detections are kept per image, the best ones; 100 at most.
        common: see `Task`.
    """

    main_metric = "map50"
    trivial_values: ClassVar = {"map50": 0.0, "map": 0.0}  # no boxes at all
    nonnegative_loss = True
    boxes = True

    @checked
    def __init__(
        self,
        num_classes: Width,
        score_threshold: FractionBelowOne = 0.05,
        nms_threshold: FractionAboveZero = 0.6,
        max_detections: Annotated[int, Bounds(1, MAX_DETECTIONS)] = 100,
        **common: Unpack[TaskOptions],
    ) -> None:
        super().__init__(**common)
        check_available()
        self.num_classes = num_classes
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections

    @property
    def output_size(self) -> int:
        return self.num_classes

    def labeled(self, target: Tensor) -> Tensor:
        return ~target.isnan().flatten(1).any(dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return fcos_loss(prediction, target).mean()

    def metrics(self) -> dict[str, Metric]:
        map50 = BoxPrecision("map_50")
        return {"map50": map50, "map": BoxPrecision("map", shared_with=map50)}

    def metric_inputs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        objects, scores = self.decode_boxes(prediction)
        return torch.cat([objects, scores[..., None]], dim=2), target

    def undefined_metrics(self, target: Tensor, names: Sequence[str] = ()) -> dict[str, str]:
        counts = (target[..., 4] >= 0) & (target[..., 5] == 0)
        return {} if counts.any() else dict.fromkeys(["map50", "map"], "no image shows an object")

    def decode_boxes(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return detect(
            prediction,
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
        )

    def picture(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        height, width = (round(side) for side in image_size(prediction))
        objects, scores = self.decode_boxes(prediction)
        objects[..., 4] = torch.where(scores < _MIN_DRAWN_SCORE, -1, objects[..., 4])
        predicted, true = (
            torch.stack([self._draw(of_image, height, width) for of_image in batch]) for batch in (objects, target)
        )
        return predicted, true

    def legend(self) -> Legend:
        classes = [(f"class {label}", self._color(label)) for label in range(self.num_classes)]
        return [*classes, ("ignored", self._color(0, ignored=True))]

    def _color(self, label: float, *, ignored: bool = False) -> tuple[float, float, float]:
        hue = label / self.num_classes * 5 / 6  # red to magenta
        return colorsys.hsv_to_rgb(hue, 0.0 if ignored else 1.0, 0.5 if ignored else 1.0)

    def _draw(self, objects: Tensor, height: int, width: int) -> Tensor:
        """Return an image [3, height, width] in [0, 1] of the outlines of objects [n, 6]: a color per class.

        Ignored objects are gray.
        """
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        objects = objects[objects[:, 4] >= 0].cpu()
        if len(objects):
            colors = []
            for *_, label, ignored in objects.tolist():
                colors.append(tuple(round(255 * channel) for channel in self._color(label, ignored=bool(ignored))))
            last = torch.tensor([width, height, width, height]) - 1
            image = draw_bounding_boxes(image, torch.minimum(objects[:, :4].round().long(), last), colors=colors)
        return image / 255

    def check_targets(self, target: Tensor) -> None:
        if target.dtype != torch.float32:
            raise ValueError(f"targets must be objects of type float32, found {target.dtype}")
        if target.dim() != 3 or target.shape[1] < 1 or target.shape[2] != 6:
            raise ValueError(f"targets must be of shape [samples, objects >= 1, 6], found {tuple(target.shape)}")
        missing = target.isnan().flatten(1)
        partly = (missing.any(dim=1) & ~missing.all(dim=1)).nonzero()
        if len(partly):
            raise ValueError(
                f"targets must be numbers, or NaN throughout where a sample has no label, found both at sample "
                f"{int(partly[0])}"
            )
        mask = ~missing[:, :1] & (target[..., 4] != -1)
        low, high, label, ignored = target[..., :2], target[..., 2:4], target[..., 4], target[..., 5]
        not_a_class = (label < 0) | (label >= self.num_classes) | (label != label.round())
        rules = {
            f"of a class in 0..{self.num_classes - 1}, or of -1 for no object": not_a_class,
            "boxes x1 < x2, y1 < y2 in pixels, >= 0": ~((low >= 0) & (low < high) & (high < torch.inf)).all(dim=2),
            "marked by 0, or by 1 if they are to be ignored": (ignored != 0) & (ignored != 1),
        }
        for rule, broken in rules.items():
            invalid = (broken & mask).nonzero()
            if len(invalid):
                sample, index = invalid[0].tolist()
                numbers = ", ".join(f"{number:g}" for number in target[sample, index].tolist())
                raise ValueError(f"objects must be {rule}, found [{numbers}] at sample {sample}, object {index}")
