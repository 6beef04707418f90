"""Mean average precision of boxes, by torchmetrics, as one number."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

MAX_DETECTIONS = 100  # of an image that COCO's evaluation looks at


def check_available() -> None:
    """Raise ValueError if what torchmetrics evaluates boxes with is not installed."""
    if find_spec("pycocotools") is None:
        raise ValueError("detection needs pycocotools, which is not installed; pip install 'mtlrun[detection]'")


class BoxPrecision(MeanAveragePrecision):
    """COCO's mean over the classes of the average precision; NaN if there is no object to find.

    Updated with detections [batch, n, 7], objects with their scores, and objects [batch, max_objects, 6]. What it keeps
    is on the CPU.

    Args:
        value: `map_50` for an IoU of 0.5, `map` for the mean over IoUs of 0.5, 0.55, ..., 0.95.
        twin: another one that is told the same, and whose evaluation is taken over, since both values come of one.
    """

    def __init__(self, value: Literal["map_50", "map"], twin: "BoxPrecision | None" = None) -> None:
        super().__init__()
        self._value = value
        # What was evaluated last, and what came of it; one list for both twins.
        self._last: list[tuple[list[Tensor], dict[str, Tensor]]] = [] if twin is None else twin._last

    def update(self, detections: Tensor, objects: Tensor) -> None:  # type: ignore[override]
        super().update(list(_items(detections.cpu())), list(_items(objects.cpu())))

    def compute(self) -> Tensor:  # type: ignore[override]
        seen = [*self.detection_scores, *self.groundtruth_labels]
        if not self._last or not _same(self._last[0][0], seen):
            self._last[:] = [(seen, super().compute())]
        value = self._last[0][1][self._value]
        return torch.where(value < 0, torch.nan, value)


def _items(rows: Tensor) -> Iterator[dict[str, Tensor]]:
    """Yield what torchmetrics wants to know of each image, on objects [batch, n, 6] or detections [batch, n, 7]."""
    for row in rows:
        found = row[row[:, 4] >= 0]
        item = {"boxes": found[:, :4], "labels": found[:, 4].long()}
        yield item | ({"scores": found[:, 6]} if rows.shape[2] == 7 else {"iscrowd": found[:, 5].long()})


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(one is other for one, other in zip(first, second, strict=True))
