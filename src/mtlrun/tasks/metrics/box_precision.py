"""Mean average precision of detected boxes, computed by torchmetrics."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

import numpy
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

MAX_DETECTIONS = 100  # per image; COCO's evaluation ignores further ones


def check_available() -> None:
    """Raise ValueError if pycocotools, which torchmetrics evaluates boxes with, is not installed."""
    if find_spec("pycocotools") is None:
        raise ValueError("detection needs pycocotools, which is not installed; pip install 'mtlrun[detection]'")


class BoxPrecision(MeanAveragePrecision):
    """COCO's mean over the classes of the average precision; NaN if the targets have no object.

    Updated with detections [batch, n, 7], which are objects and their scores, and objects [batch, max_objects, 6]. Its
    state is on the CPU.

    Args:
        value: `map_50` for an IoU of 0.5, `map` for the mean over IoUs of 0.5, 0.55, ..., 0.95.
        shared_with: a metric updated with the same detections; COCO's evaluation, which gives both values, then runs
            once for both.
    """

    def __init__(self, value: Literal["map_50", "map"], shared_with: "BoxPrecision | None" = None) -> None:
        # The thresholds of pycocotools, digit by digit: torchmetrics makes its defaults in float32, where precision is
        # read at a recall of 0.1000000015 and an IoU of 0.6000000238 is asked for.
        super().__init__(
            iou_thresholds=numpy.linspace(0.5, 0.95, 10).tolist(), rec_thresholds=numpy.linspace(0.0, 1.0, 101).tolist()
        )
        self._value = value
        # Inputs and result of the last evaluation; one list for the metrics that share it.
        self._last: list[tuple[list[Tensor], dict[str, Tensor]]] = [] if shared_with is None else shared_with._last

    def update(self, detections: Tensor, objects: Tensor) -> None:  # type: ignore[override]
        super().update(list(_by_image(detections.cpu())), list(_by_image(objects.cpu())))

    def compute(self) -> Tensor:  # type: ignore[override]
        inputs = [*self.detection_scores, *self.groundtruth_labels]
        if not self._last or not _same(self._last[0][0], inputs):
            self._last[:] = [(inputs, super().compute())]
        value = self._last[0][1][self._value]
        return torch.where(value < 0, torch.nan, value)


def _by_image(batch: Tensor) -> Iterator[dict[str, Tensor]]:
    """Yield objects [batch, n, 6] or detections [batch, n, 7] image by image, as torchmetrics takes them."""
    for padded in batch:
        objects = padded[padded[:, 4] >= 0]
        boxes = {"boxes": objects[:, :4].double(), "labels": objects[:, 4].long()}
        yield boxes | ({"scores": objects[:, 6]} if batch.shape[2] == 7 else {"iscrowd": objects[:, 5].long()})


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(one is other for one, other in zip(first, second, strict=True))
