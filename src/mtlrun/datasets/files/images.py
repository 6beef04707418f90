"""Images in ordinary files, decoded on access or once into memory."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from mtlrun.datasets.base import Sample, SampleWeights
from mtlrun.datasets.files.base import FileSplit
from mtlrun.datasets.files.pixels import UNREADABLE, ByteSplit, Scale, channels_first, open_image
from mtlrun.datasets.files.shifting import Augmentation
from mtlrun.errors import DataError, list_problems


def decode(path: Path, size: int, where: str, *, labels: bool = False) -> numpy.ndarray:
    """Return an image, resized to a square: bytes [size, size, 3], or whole numbers [size, size] if it holds labels.

    `where` names the sample in errors.
    """
    try:
        with open_image(path) as image:
            if labels:
                return numpy.array(image.resize((size, size), Image.Resampling.NEAREST))
            image.draft("RGB", (size, size))  # decodes a larger JPEG at half its size or less, which is faster
            return numpy.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except UNREADABLE as error:
        raise DataError(f"{path} ({where}): not a readable image: {error}") from error


def find_missing(folder: Path, names: Iterable[str], advice: str) -> None:
    """Raise DataError unless `folder` holds files of all these names."""
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of the listed files, such as {missing[0]}; {advice}")


class ImageFileSplit(FileSplit):
    """Base of the splits whose inputs are image files.

    Args:
        shape: of an image, (channels, height, width).
        scale: from bytes to numbers.
        targets, sample_ids, sources, sample_weights: see `Split`.
        augmentation: of the pixels, at each access; None for none.
    """

    targets: Mapping[str, Tensor]
    sample_ids: Sequence[Any]
    #: Type of the decoded pixels: uint8, or float32 for numbers in [0, 1].
    pixel_type = torch.uint8

    def __init__(
        self,
        shape: tuple[int, ...],
        scale: Scale,
        targets: Mapping[str, Tensor],
        sample_ids: Sequence[Any],
        sources: Mapping[str, Tensor] | None = None,
        sample_weights: SampleWeights | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.targets = dict(targets)
        self.sample_ids = list(sample_ids)
        self.sources = None if sources is None else dict(sources)
        self.sample_weights = sample_weights
        self._shape, self._scale, self._augmentation = shape, scale, augmentation

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> Sample:
        pixels = self.pixels(index)
        if self._augmentation is not None:
            pixels = self._augmentation(pixels[None])[0]
        return self._scale(pixels), self.labels(index)

    @abstractmethod
    def pixels(self, index: int) -> Tensor:
        """Decode one image: [channels, height, width] of type `pixel_type`.

        Raises:
            DataError: the file is missing, or no image.
        """

    def labels(self, index: int) -> dict[str, Any]:
        """Return the targets of one sample."""
        return {task: target[index] for task, target in self.targets.items()}

    def in_memory(self) -> ByteSplit:
        pixels = decode_all(self.pixels, len(self), self._shape, self.pixel_type)
        return ByteSplit(
            pixels, self._scale, self.targets, self.sample_ids, self.sources, self.sample_weights, self._augmentation
        )


def decode_all(
    decode_one: Callable[[int], Tensor], count: int, shape: Sequence[int], pixel_type: torch.dtype = torch.uint8
) -> Tensor:
    """Return the images 0 to count - 1, [count, *shape].

    Raises:
        DataError: of all that cannot be decoded; the first ones are listed.

    Pillow releases Python's lock while it decodes, so threads run in parallel.
    """
    images = torch.empty(count, *shape, dtype=pixel_type)

    problems: dict[int, str] = {}

    def fill(index: int) -> None:
        try:
            images[index] = decode_one(index)
        except DataError as error:
            problems[index] = str(error)

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(fill, range(count)):
            pass
    if problems:
        raise DataError(list_problems([problems[index] for index in sorted(problems)], "images cannot be used"))
    return images


class ClassifiedImages(ImageFileSplit):
    """A split of images [3, size, size] in files, with a class for each task.

    Args:
        name: of the split, for errors.
        paths: one for each sample.
        targets: {task: int64 [num_samples]}, -1 for a missing label.
        size: side of the images.
        scale: from bytes to numbers.
        sample_ids: None for the names of the files.
        sources: see `Split`.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        targets: Mapping[str, Tensor],
        size: int,
        *,
        scale: Scale,
        sample_ids: Sequence[str] | None = None,
        sources: Mapping[str, Tensor] | None = None,
    ) -> None:
        file_names = [path.name for path in paths] if sample_ids is None else sample_ids
        super().__init__((3, size, size), scale, targets, file_names, sources)
        self.paths = paths
        self._name = name
        self._classes = torch.stack(list(targets.values()), dim=1).numpy()

    def where(self, index: int) -> str:
        """Return in words which sample this is."""
        return f"sample {index} of the {self._name} split"

    def pixels(self, index: int) -> Tensor:
        return channels_first(decode(self.paths[index], self._shape[1], self.where(index)))

    def labels(self, index: int) -> dict[str, Any]:
        # Plain numbers, since with many tasks it takes longer to stack tensors of one number than to decode the image.
        return dict(zip(self.targets, self._classes[index].tolist(), strict=True))
