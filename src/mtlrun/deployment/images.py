"""New images, encoded as those of a run: files, or a folder of them."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mtlrun.datasets.files.npy_kinds import IMAGE
from mtlrun.datasets.files.pixels import UNREADABLE, Scale, channels_first, open_image
from mtlrun.datasets.images import read_pixels
from mtlrun.deployment.inputs import InputReader, Samples
from mtlrun.errors import DataError

# Images that are named together.
_AT_ONCE = 4096


class PixelEncoder(ABC):
    """Base of the encoders of image files as those of a run.

    Args:
        shape: of an image, (channels, height, width).
    """

    #: Endings of files, besides those of image formats, that are found in folders.
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Return one image as the model takes it, float32 of the shape; DataError if it cannot be read."""

    def encode(self, paths: Sequence[str | Path]) -> tuple[Tensor, dict[int, str]]:
        """Return images as inputs of the model, and what is wrong with those that are left out.

        Returns:
            Inputs of the images that can be read, in their order, float32 [num_readable, *shape]; and {position: why an
            image cannot be}.
        """
        images, wrong = [], {}
        for position, path in enumerate(paths):
            try:
                images.append(self.read(Path(path)))
            except DataError as error:
                wrong[position] = str(error)
        return torch.stack(images) if images else torch.empty(0, *self.shape), wrong


class ImageEncoder(PixelEncoder):
    """The encoder of images of any size, which are scaled to that of the run: those of `dataset=images`.

    Args:
        shape: of an image, (channels, height, width).
        normalization: how its pixels are normalized.
        pixel_range: the values of black and white of images of more than 8 bits; None for images of 8 bits.
    """

    def __init__(self, shape: Sequence[int], normalization: Any, pixel_range: Sequence[float] | None = None) -> None:
        super().__init__(shape)
        self._scale = Scale(normalization, self.shape[0])
        self._range = None if pixel_range is None else (float(pixel_range[0]), float(pixel_range[1]))

    @staticmethod
    def from_learned(learned: Mapping[str, Any], dataset: Mapping[str, Any]) -> "ImageEncoder":
        """Return the encoder of a run's images.

        Args:
            learned: the section `inputs` of the run's `learned.json`.
            dataset: the node `dataset` of its config.
        """
        size = learned["size"]
        return ImageEncoder((learned["channels"], size, size), learned["normalize"], dataset.get("pixel_range"))

    def read(self, path: Path) -> Tensor:
        return self._scale(read_pixels(path, self.shape, self._range))


class FixedSizeEncoder(PixelEncoder):
    """The encoder of images of the size that the network was trained on: .npy files in channels last, or image files.

    Arrays of whole numbers are bytes, others are in [0, 1].

    Args:
        shape: of an image, (channels, height, width).
        pixels: {means, stds} by which the channels of images in [0, 1] are normalized.
    """

    suffixes = (".npy",)

    def __init__(self, shape: Sequence[int], pixels: Mapping[str, Sequence[float]]) -> None:
        super().__init__(shape)
        self._mean, self._std = (torch.tensor(pixels[key])[:, None, None] for key in ("means", "stds"))
        self._kind = dataclasses.replace(IMAGE, shape=self.shape[:1])

    def read(self, path: Path) -> Tensor:
        height, width = self.shape[1:]
        if path.suffix.lower() == ".npy":
            image = self._kind.read(path, (height, width), "")
        else:
            image = self._decode(path)
            if image.shape[1:] != (height, width):
                raise DataError(
                    f"{path}: images must be {width} x {height} pixels for this run, found "
                    f"{image.shape[2]} x {image.shape[1]}"
                )
        return (image - self._mean) / self._std

    def _decode(self, path: Path) -> Tensor:
        """Return an image file as float32 in [0, 1], [channels, height, width]."""
        try:
            with open_image(path) as image:
                upright = ImageOps.exif_transpose(image)
                pixels = numpy.array(upright.convert("L" if self.shape[0] == 1 else "RGB"))
        except UNREADABLE as error:
            raise DataError(f"{path} is not a readable image: {error}") from error
        return channels_first(pixels.reshape(*pixels.shape[:2], self.shape[0])).float() / 255


class ImageReader(InputReader):
    """Image files.

    Args:
        paths: of the files.
        ids: what they are called in the predictions.
        encoder: of the images.
        absent: {position: why there is no file}.
        ids_are_numbers: True if all ids are whole numbers.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        ids: Sequence[str | int],
        encoder: PixelEncoder,
        absent: Mapping[int, str] | None = None,
        *,
        ids_are_numbers: bool = False,
    ) -> None:
        self._paths, self._ids, self._encoder, self._absent = paths, ids, encoder, absent or {}
        self.ids_are_numbers = ids_are_numbers

    def read(self, batch_size: int) -> Iterator[Samples]:
        for start in range(0, len(self._paths), _AT_ONCE):
            end = min(start + _AT_ONCE, len(self._paths))
            wrong = {at - start: self._absent[at] for at in range(start, end) if at in self._absent}
            yield Samples(self._ids[start:end], self._batches(self._paths[start:end], batch_size, wrong), wrong)

    def _batches(
        self, paths: Sequence[Path], batch_size: int, wrong: dict[int, str]
    ) -> Iterator[tuple[numpy.ndarray, Tensor]]:
        """Yield (positions, images) of those that can be read, and add what is wrong with the others to `wrong`."""
        there = [position for position in range(len(paths)) if position not in wrong]
        for start in range(0, len(there), batch_size):
            positions = there[start : start + batch_size]
            inputs, problems = self._encoder.encode([paths[position] for position in positions])
            wrong.update({positions[at]: problem for at, problem in problems.items()})
            if len(inputs):
                yield numpy.array([position for position in positions if position not in wrong]), inputs


def find_images(folder: Path, encoder: PixelEncoder) -> list[Path]:
    """Return the files in and below a folder that have the ending of an image format, by name.

    Args:
        folder: to look through.
        encoder: of the images.

    Raises:
        DataError: there is none.
    """
    Image.init()
    endings = {*Image.EXTENSION, *encoder.suffixes}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not paths:
        raise DataError(f"{folder}: there are no images in this folder")
    return paths
