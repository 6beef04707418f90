"""Augmentation of images with dense labels: the image and its labels are transformed together."""

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mtlrun.datasets.base import BatchSplit, DerivedSplit, Sample, Split

SCALES = (1.0, 1.2, 1.5)


class Augmented(DerivedSplit):
    """A split whose samples are cropped, scaled up again and flipped, at random at each access.

    `targets` are those without augmentation, which is enough to check them, since a crop makes no new labels.

    Args:
        split: images [3, height, width] with some of the targets segmentation [height, width], depth [1, height, width]
            and normals [3, height, width].
        inverse_depth: whether the target depth is inverse depth, which grows with the scale instead of shrinking.
    """

    def __init__(self, split: Split, *, inverse_depth: bool) -> None:
        super().__init__(split)
        self._inverse_depth = inverse_depth

    def __getitem__(self, index: int) -> Sample:
        return augmented(*super().__getitem__(index), self._inverse_depth)


class AugmentedInMemory(BatchSplit):
    """The same for a split in memory: a batch is augmented where it was made.

    Args:
        split, inverse_depth: as for `Augmented`.
    """

    is_random = True
    same_everywhere = False  # a GPU rounds interpolated pixels otherwise

    def __init__(self, split: BatchSplit, *, inverse_depth: bool) -> None:
        self._split, self._inverse_depth = split, inverse_depth
        self.targets, self.sample_ids = split.targets, split.sample_ids
        self.sources, self.sample_weights = split.sources, split.sample_weights

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Sample:
        return augmented(*self._split[index], self._inverse_depth)

    @property
    def device(self) -> torch.device:
        return self._split.device

    @property
    def nbytes(self) -> int:
        return self._split.nbytes

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        images, targets = self._split.batch(indices)
        samples = [
            augmented(image, {task: of_task[place] for task, of_task in targets.items()}, self._inverse_depth)
            for place, image in enumerate(images)
        ]
        maps = {task: torch.stack([labels[task] for _, labels in samples]) for task in targets}
        return torch.stack([image for image, _ in samples]), maps

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        moved._split = self._split.to(device)
        return moved


def augmented(image: Tensor, targets: Mapping[str, Tensor], inverse_depth: bool) -> Sample:
    """Return an image and its labels, changed at random by numbers of Python's generator."""
    height, width = image.shape[-2:]
    scale = random.choice(SCALES)
    rows, columns = max(int(height / scale), 1), max(int(width / scale), 1)
    top, left = random.randint(0, height - rows), random.randint(0, width - columns)
    image, targets = scaled_crop(image, targets, scale, top, left, inverse_depth=inverse_depth)
    return flipped(image, targets) if random.random() < 0.5 else (image, targets)


def scaled_crop(
    image: Tensor, targets: Mapping[str, Tensor], scale: float, top: int, left: int, *, inverse_depth: bool
) -> Sample:
    """Crop to 1 / `scale` of the height and width, and scale the crop up to the full size.

    An object that appears `scale` times larger is `scale` times closer, so depths are divided by `scale` and inverse
    depths multiplied. Images are interpolated bilinearly; labels are those of the nearest pixel, since a mean of two
    classes, or of a depth and the 0 of an invalid pixel, would be wrong.

    Source: Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019), in the revised code of the authors.
    That code aligns the corner pixels of images but the corners of the pixels of labels, which shifts one against the
    other by up to a pixel; here both are sampled at the centers of the same pixels.
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
    """Swap left and right; the horizontal component of normals changes its sign."""
    mirrored = {task: target.flip(-1) for task, target in targets.items()}
    if "normals" in mirrored:
        mirrored["normals"][0].neg_()
    return image.flip(-1), mirrored
