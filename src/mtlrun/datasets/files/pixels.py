"""Images as bytes: what they are scaled to, and splits that hold them in memory."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy
import torch
from PIL import Image
from torch import Tensor

from mtlrun.datasets.base import Sample, TensorSplit

Normalization = Literal["none", "centred", "imagenet"]

#: What Pillow raises for a broken file; it depends on the format.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

# Mean and standard deviation of images in [0, 1]. Of ImageNet's training images they are what torchvision's pretrained
# networks were trained with.
_PLAIN: dict[Normalization, tuple[float, float]] = {"none": (0.0, 1.0), "centred": (0.5, 0.5)}
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def channels_first(pixels: numpy.ndarray) -> Tensor:
    """Return an image [height, width, channels] as [channels, height, width]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Scale:
    """From the bytes of images, uint8 [..., channels, height, width], to float32 of the same shape.

    Args:
        normalization: `none` for [0, 1], `centred` for [-1, 1], `imagenet` for what pretrained networks expect.
        channels: of the images; 3 with `imagenet`.
    """

    def __init__(self, normalization: Normalization, channels: int = 3) -> None:
        mean, spread = (
            _IMAGENET if normalization == "imagenet" else ([value] * channels for value in _PLAIN[normalization])
        )
        self._plain = normalization == "none"
        self._mean, self._spread = (torch.tensor(values)[:, None, None] for values in (mean, spread))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Scale images."""
        found = pixels.float().div_(255)
        return found if self._plain else found.sub_(self._mean).div_(self._spread)

    def to(self, device: torch.device | str) -> Self:
        """Return the same for images on `device`."""
        moved = copy.copy(self)
        moved._mean, moved._spread = self._mean.to(device), self._spread.to(device)
        return moved


class ByteSplit(TensorSplit):
    """A split in memory as bytes, a quarter of what numbers take, and scaled when a batch is made.

    Args:
        inputs: uint8 [num_samples, channels, height, width].
        targets, sample_ids, sources: see `TensorSplit`.
        scale: makes numbers of bytes, on the device on which the inputs lie.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Mapping[str, Tensor],
        sample_ids: Sequence[Any] | None,
        sources: Mapping[str, Tensor] | None,
        scale: Scale,
    ) -> None:
        super().__init__(inputs, targets, sample_ids, sources)
        self._scale = scale

    def __getitem__(self, index: int) -> Sample:
        pixels, targets = super().__getitem__(index)
        return self._scale(pixels), targets

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        pixels, targets = super().batch(indices)
        return self._scale(pixels), targets

    def to(self, device: torch.device | str) -> Self:
        moved = super().to(device)
        moved._scale = self._scale.to(device)
        return moved
