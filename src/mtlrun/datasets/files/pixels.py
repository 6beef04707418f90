"""Images as bytes: their scaling to numbers, and splits that hold them in memory."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy
import torch
from PIL import Image
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import Normalization, Sample, SampleWeights, TensorSplit
from mtlrun.datasets.files.shifting import Augmentation

#: Errors that Pillow raises for broken files, depending on the format.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

# Formats whose files are programs, which another program is started for.
_PROGRAMS = ("EPS",)


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image with Pillow, whatever its format, unless that is a program.

    Raises:
        UNREADABLE: it is no image, or a broken one.
    """
    image = Image.open(source)
    if image.format in _PROGRAMS:
        image.close()
        raise OSError(f"{image.format} is a program, and no image until another program has executed it")
    return image


# Mean and standard deviation by which images in [0, 1] are normalized. Those of ImageNet's training images are what
# torchvision's pretrained networks expect.
_PLAIN: dict[Normalization, tuple[float, float]] = {"none": (0.0, 1.0), "centered": (0.5, 0.5)}
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def channels_first(pixels: numpy.ndarray) -> Tensor:
    """Return an image [height, width, channels] as [channels, height, width]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Scale:
    """A function from the pixels of images, [..., channels, height, width], to float32 of the same shape.

    Pixels are bytes, or float32 in [0, 1].

    Args:
        normalization: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained networks expect.
        channels: of the images; 3 with `imagenet`.
    """

    def __init__(self, normalization: Normalization, channels: int = 3) -> None:
        check_one_of("normalize", normalization, Normalization)
        mean, std = (
            _IMAGENET if normalization == "imagenet" else ([value] * channels for value in _PLAIN[normalization])
        )
        self._plain = normalization == "none"
        self._white = torch.tensor(255.0)  # a tensor, since GPUs multiply by the inverse of a number, and round it
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Scale images."""
        return self.normalize_(pixels.float().div_(self._white) if pixels.dtype == torch.uint8 else pixels.clone())

    def normalize_(self, images: Tensor) -> Tensor:
        """Normalize images in [0, 1], float32 [..., channels, height, width], in place."""
        return images if self._plain else images.sub_(self._mean).div_(self._std)

    def as_plain(self) -> dict[str, list[float]]:
        """Return the mean and the standard deviation by which each channel of images in [0, 1] is normalized."""
        return {"means": self._mean.flatten().tolist(), "stds": self._std.flatten().tolist()}

    def to(self, device: torch.device | str) -> Self:
        """Return the same function for images on `device`."""
        moved = copy.copy(self)
        moved._mean, moved._std, moved._white = (each.to(device) for each in (self._mean, self._std, self._white))
        return moved


class ByteSplit(TensorSplit):
    """A split in memory as bytes, a quarter of the size of numbers; batches are scaled when they are made.

    Args:
        inputs: uint8 [num_samples, channels, height, width]; float32 in [0, 1] for images of more than 8 bits.
        scale: from pixels to numbers, on the device of the inputs.
        targets, sample_ids, sources, sample_weights: see `Split`.
        augmentation: of the pixels, at each access.
    """

    same_everywhere = True

    def __init__(
        self,
        inputs: Tensor,
        scale: Scale,
        targets: Mapping[str, Tensor],
        sample_ids: Sequence[Any] | None = None,
        sources: Mapping[str, Tensor] | None = None,
        sample_weights: SampleWeights | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(inputs, targets, sample_ids, sources, sample_weights)
        self._scale, self._augmentation = scale, augmentation
        self.is_random = augmentation is not None

    def __getitem__(self, index: int) -> Sample:
        pixels, targets = super().__getitem__(index)
        return self._scale(pixels if self._augmentation is None else self._augmentation(pixels[None])[0]), targets

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        pixels, targets = super().batch(indices)
        return self._scale(pixels if self._augmentation is None else self._augmentation(pixels)), targets

    def to(self, device: torch.device | str) -> Self:
        moved = super().to(device)
        moved._scale = self._scale.to(device)
        return moved
