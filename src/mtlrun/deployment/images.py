"""New images, encoded as those of a run: files, or a folder of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from mtlrun.datasets.files.pixels import Scale
from mtlrun.datasets.images import read_pixels
from mtlrun.deployment.inputs import InputReader, Samples
from mtlrun.errors import DataError

# Images that are named together.
_AT_ONCE = 4096


class ImageEncoder:
    """The encoder of image files as those of a run.

    Args:
        shape: of an image, (channels, height, width).
        normalization: how its pixels are normalized.
        pixel_range: the values of black and white of images of more than 8 bits; None for images of 8 bits.
    """

    def __init__(self, shape: Sequence[int], normalization: Any, pixel_range: Sequence[float] | None = None) -> None:
        self.shape = tuple(shape)
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

    def encode(self, paths: Sequence[str | Path]) -> tuple[Tensor, dict[int, str]]:
        """Return images as inputs of the model, and what is wrong with those that are left out.

        Returns:
            Inputs of the images that can be read, in their order, float32 [num_readable, *shape]; and {position: why an
            image cannot be}.
        """
        images, wrong = [], {}
        for position, path in enumerate(paths):
            try:
                images.append(self._scale(read_pixels(Path(path), self.shape, self._range)))
            except DataError as error:
                wrong[position] = str(error)
        return torch.stack(images) if images else torch.empty(0, *self.shape), wrong


class ImageReader(InputReader):
    """Image files.

    Args:
        paths: of the files.
        ids: what they are called in the predictions.
        encoder: of the images.
    """

    def __init__(self, paths: Sequence[Path], ids: Sequence[str], encoder: ImageEncoder) -> None:
        self._paths, self._ids, self._encoder = paths, ids, encoder

    def read(self, batch_size: int) -> Iterator[Samples]:
        for start in range(0, len(self._paths), _AT_ONCE):
            paths, wrong = self._paths[start : start + _AT_ONCE], dict[int, str]()
            yield Samples(self._ids[start : start + _AT_ONCE], self._batches(paths, batch_size, wrong), wrong)

    def _batches(
        self, paths: Sequence[Path], batch_size: int, wrong: dict[int, str]
    ) -> Iterator[tuple[numpy.ndarray, Tensor]]:
        for start in range(0, len(paths), batch_size):
            inputs, problems = self._encoder.encode(paths[start : start + batch_size])
            wrong.update({start + position: problem for position, problem in problems.items()})
            positions = [
                start + position
                for position in range(len(paths[start : start + batch_size]))
                if position not in problems
            ]
            if positions:
                yield numpy.array(positions), inputs


def find_images(folder: Path) -> list[Path]:
    """Return the files in and below a folder that have the ending of an image format, by name.

    Raises:
        DataError: there is none.
    """
    from PIL import Image

    Image.init()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in Image.EXTENSION and path.is_file())
    if not paths:
        raise DataError(f"{folder}: there are no images in this folder")
    return paths
