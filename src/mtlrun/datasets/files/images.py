"""Images in ordinary files: decoded when they are asked for, or once for all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import Cache, MultiTaskDataset, Sample, SplitName
from mtlrun.datasets.files.pixels import UNREADABLE, ByteSplit, Scale, channels_first
from mtlrun.errors import DataError


def decode(path: Path, size: int, where: str, *, labels: bool = False) -> numpy.ndarray:
    """Return an image as bytes [size, size, 3], or as whole numbers [size, size] where it holds labels.

    Its sides are scaled each by a factor of its own. `where` says in errors which sample this is.
    """
    try:
        with Image.open(path) as image:
            if labels:
                return numpy.array(image.resize((size, size), Image.Resampling.NEAREST))
            image.draft("RGB", (size, size))  # a JPEG that is larger is decoded at a half or less: faster
            return numpy.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except UNREADABLE as error:
        raise DataError(f"{path} ({where}): not a readable image: {error}") from error


def find_missing(folder: Path, names: Iterable[str], advice: str) -> None:
    """Raise DataError unless `folder` holds files of all these names."""
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of the listed files, such as {missing[0]}; {advice}")


class FileSplit(Dataset[Sample], ABC):
    """Base of splits that decode an image when it is asked for.

    Args:
        shape: of an image, (channels, height, width).
        targets: {task: [num_samples, ...]}.
        sample_ids: [num_samples], what each sample is called in the source.
        sources: {source: indices of its samples}, where each sample belongs to one of several.
        scale: makes numbers of bytes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        targets: Mapping[str, Tensor],
        sample_ids: Sequence[Any],
        sources: Mapping[str, Tensor] | None,
        scale: Scale,
    ) -> None:
        self.targets = dict(targets)
        self.sample_ids = list(sample_ids)
        self.sources = None if sources is None else dict(sources)
        self._shape, self._scale = shape, scale

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> Sample:
        return self._scale(self.pixels(index)), self.labels(index)

    @abstractmethod
    def pixels(self, index: int) -> Tensor:
        """Decode one image: uint8 [channels, height, width].

        Raises:
            DataError: that cannot be done.
        """

    def labels(self, index: int) -> dict[str, Any]:
        """Return the targets of one sample."""
        return {task: target[index] for task, target in self.targets.items()}

    def decoded(self) -> ByteSplit:
        """Return the split in memory."""
        pixels = in_memory(self.pixels, len(self), self._shape)
        return ByteSplit(pixels, self.targets, self.sample_ids, self.sources, self._scale)


def in_memory(decoded: Callable[[int], Tensor], count: int, shape: Sequence[int]) -> Tensor:
    """Return the images 0, 1, ... as bytes, [count, *shape]; the error of the lowest number is raised.

    Pillow decodes without Python's lock, so threads do it side by side.
    """
    found = torch.empty(count, *shape, dtype=torch.uint8)

    def fill(index: int) -> None:
        found[index] = decoded(index)

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(fill, range(count)):
            pass
    return found


class ImageFiles(FileSplit):
    """A split of images [3, size, size] in files, with a class for each task.

    Args:
        name: of the split, for errors.
        paths: one for each sample.
        targets: {task: int64 [num_samples]}, -1 where a label is missing.
        size: side of the images.
        imagenet_normalization: subtract ImageNet's mean and divide by its standard deviation; else in [0, 1].
        sample_ids: what each sample is called; None for the names of the files.
        sources: {source: indices of its samples}, where each sample belongs to one of several.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        targets: Mapping[str, Tensor],
        size: int,
        *,
        imagenet_normalization: bool,
        sample_ids: Sequence[str] | None = None,
        sources: Mapping[str, Tensor] | None = None,
    ) -> None:
        scale = Scale("imagenet" if imagenet_normalization else "none")
        names = [path.name for path in paths] if sample_ids is None else sample_ids
        super().__init__((3, size, size), targets, names, sources, scale)
        self.paths = paths
        self._name = name
        self._rows = torch.stack(list(targets.values()), dim=1).numpy()

    def where(self, index: int) -> str:
        """Return which sample this is in words."""
        return f"sample {index} of the {self._name} split"

    def pixels(self, index: int) -> Tensor:
        found = decode(self.paths[index], self._shape[1], self.where(index))
        return channels_first(found)

    def labels(self, index: int) -> dict[str, Any]:
        # Plain numbers: stacking tensors of one number each would take longer than decoding, with many tasks.
        return dict(zip(self.targets, self._rows[index].tolist(), strict=True))


class FileDataset(MultiTaskDataset):
    """Base of the datasets of images in files.

    Args:
        cache: `none`: an image is decoded whenever it is needed; `memory`: each split is decoded once, to bytes, when
            it is first asked for; `device`: and these lie on the device that is trained on.
        choices: which of them there are: a Literal type.
    """

    def __init__(self, cache: Cache, choices: Any = Cache) -> None:
        check_one_of("cache", cache, choices)
        self.cache = cache
        self._splits: dict[SplitName, Dataset[Sample]] = {}

    def split(self, name: SplitName) -> Dataset[Sample]:
        if name not in self._splits:
            files = self.files(name)
            self._splits[name] = files if self.cache == "none" else files.decoded()
        return self._splits[name]

    @abstractmethod
    def files(self, name: SplitName) -> Any:
        """Return a split that reads its files whenever a sample is asked for, and has `decoded()`."""
