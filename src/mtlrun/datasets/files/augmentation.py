"""Augmentation of images with labels at each pixel: what is done to the image is done to the labels as well."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from mtlrun.datasets.base import Sample

SCALES = (1.0, 1.2, 1.5)


class Augmented(Dataset[Sample]):
    """A split whose samples are cropped, scaled up again and flipped, at random at each access.

    Args:
        split: gives images [3, height, width] and targets of the names segmentation [height, width], depth
            [1, height, width] and normals [3, height, width], those of them that there are.
        inverse_depth: what depth says grows with the scale, instead of shrinking.
    """

    def __init__(self, split: Dataset[Sample], *, inverse_depth: bool) -> None:
        self._split = split
        self._inverse_depth = inverse_depth
        # For the checks: a crop makes no new labels.
        self.targets: Mapping[str, Tensor] | None = getattr(split, "targets", None)
        self.sample_ids: Sequence[Any] | None = getattr(split, "sample_ids", None)

    def __len__(self) -> int:
        return len(self._split)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        image, targets = self._split[index]
        height, width = image.shape[-2:]
        scale = random.choice(SCALES)
        rows, columns = max(int(height / scale), 1), max(int(width / scale), 1)
        top, left = random.randint(0, height - rows), random.randint(0, width - columns)
        image, targets = scaled_crop(image, targets, scale, top, left, inverse_depth=self._inverse_depth)
        return flipped(image, targets) if random.random() < 0.5 else (image, targets)


def scaled_crop(
    image: Tensor, targets: Mapping[str, Tensor], scale: float, top: int, left: int, *, inverse_depth: bool
) -> Sample:
    """Cut out a part of 1 / `scale` of both sides and scale it up to the full size.

    A camera that shows a thing `scale` times larger is `scale` times closer, so depths are divided and inverse depths
    multiplied. Images are interpolated bilinearly, all labels take the nearest pixel: a mean of two classes, or of a
    depth and the 0 of an invalid pixel, would be wrong.

    Source: Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019), in the revised code of the authors.
    There the image's corner pixels, and for labels all pixels' corners, stay in place, which moves one against the
    other by up to a pixel; here both are sampled at the middle of the same pixels.
    """
    if scale == 1:
        return image, dict(targets)
    height, width = image.shape[-2:]
    rows, columns = max(int(height / scale), 1), max(int(width / scale), 1)
    part = (..., slice(top, top + rows), slice(left, left + columns))
    cropped = {}
    for task, target in targets.items():
        # Interpolation does not know int64; float32 holds the index of any class.
        maps = target[part].float() if task == "segmentation" else target[part]
        maps = interpolate(maps.reshape(1, -1, rows, columns), (height, width), mode="nearest-exact")
        cropped[task] = maps.reshape(target.shape).to(target.dtype)
    if "depth" in cropped:
        cropped["depth"] = cropped["depth"] * scale if inverse_depth else cropped["depth"] / scale
    return interpolate(image[part][None], (height, width), mode="bilinear", align_corners=False)[0], cropped


def flipped(image: Tensor, targets: Mapping[str, Tensor]) -> Sample:
    """Swap left and right; the first component of a normal, which points to one of them, changes its sign."""
    turned = {task: target.flip(-1) for task, target in targets.items()}
    if "normals" in turned:
        turned["normals"] = turned["normals"] * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    return image.flip(-1), turned
