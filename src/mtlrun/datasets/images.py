"""images: a folder of images of one's own, and a table of their labels; see docs/your_data.md."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from mtlrun.datasets.base import MultiTaskDataset, Sample, SplitName, TensorSplit
from mtlrun.datasets.columns import MISSING, read
from mtlrun.datasets.row_splits import check_split_keys, split_rows
from mtlrun.datasets.table import identify
from mtlrun.datasets.targets import check_target_keys, read_targets
from mtlrun.errors import DataError

# Mean and standard deviation of ImageNet's training images in [0, 1], as torchvision's weights expect them.
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Images(MultiTaskDataset):
    """Image files of any format that Pillow reads, with labels in a CSV or Parquet file: one row per image.

    Inputs are [channels, size, size]; each side is scaled by a factor of its own. Targets and splits are those of
    `mtlrun.datasets.Table`, with the same keys.

    Args:
        root: the folder in which the images are.
        labels: the CSV or Parquet file.
        tasks, kinds: names of the tasks, and of their classes; filled in by the YAML.
        file_column: holds the path of each image below `root`.
        size: side of the images in pixels.
        channels: 1 for grey levels, 3 for colours.
        normalise: `none` for [0, 1], `centred` for [-1, 1], `imagenet` for what pretrained backbones expect.
        cache: `memory`: each split is decoded once, to bytes; `none`: images are decoded whenever they are needed.
        targets, classes, standardise_targets, split_column, fractions, group_column, stratify, split_seed, id_column,
            missing, separator: see `Table`.
    """

    def __init__(
        self,
        root: str | None,
        labels: str | None,
        tasks: Sequence[str],
        kinds: Sequence[str],
        file_column: str = "file",
        size: int = 64,
        channels: Literal[1, 3] = 3,
        normalise: Literal["none", "centred", "imagenet"] = "centred",
        cache: Literal["memory", "none"] = "memory",
        targets: Mapping[str, str | list[str]] | None = None,
        classes: Mapping[str, Sequence[Any]] | None = None,
        standardise_targets: Sequence[str] = (),
        split_column: str | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        group_column: str | None = None,
        stratify: str | None = None,
        split_seed: int = 0,
        id_column: str | None = None,
        missing: Sequence[str] = MISSING,
        separator: str = ",",
    ) -> None:
        if root is None:
            raise ValueError("root must name the folder of the images, as in dataset.root=photos, found null")
        if labels is None:
            raise ValueError("labels must name a CSV or Parquet file with a row per image, found null")
        if size < 1:
            raise ValueError(f"size must be >= 1, found {size}")
        if normalise == "imagenet" and channels != 3:
            raise ValueError(f"normalise must be none or centred with channels={channels}, found imagenet")
        check_split_keys(split_column, fractions, group_column, stratify, split_seed)
        check_target_keys(tasks, kinds, classes or {}, standardise_targets)
        table = read(labels, separator, missing)
        table.require(file_column, "dataset.file_column")
        self.rows = split_rows(
            table, split_column=split_column, fractions=fractions, group_column=group_column, stratify=stratify,
            split_seed=split_seed,
        )  # fmt: skip
        kind_of = dict(zip(tasks, kinds, strict=True))
        found = read_targets(table, self.rows, kind_of, targets or {}, classes or {}, standardise_targets)
        self.task_names = tuple(tasks)
        self.classes, self.scales, self._targets = found.classes, found.scales, found.tensors
        self.input_shape = (channels, size, size)
        self._cache = cache
        self._scale = _scale(normalise, channels)
        self._places = [table.where(file_column, row) for row in range(len(table))]
        self._paths = []
        for place, cell in zip(self._places, table.texts(file_column), strict=True):
            if cell is None or not Path(root, cell).is_file():
                what = "the cell is empty" if cell is None else f"there is no file {Path(root, cell)}"
                raise DataError(f"{place}: {what}; dataset.file_column holds paths below dataset.root={root}")
            self._paths.append(Path(root, cell))
        self._ids = identify(table, id_column)
        self._splits: dict[SplitName, ImageSplit | ByteSplit] = {}

    def split(self, name: SplitName) -> "ImageSplit | ByteSplit":
        if name not in self._splits:
            rows = self.rows[name].tolist()
            lazy = ImageSplit(
                [self._paths[row] for row in rows],
                [self._places[row] for row in rows],
                {task: target[rows] for task, target in self._targets.items()},
                self.input_shape,
                self._scale,
                [self._ids[row] for row in rows],
            )
            self._splits[name] = lazy if self._cache == "none" else lazy.decoded()
        return self._splits[name]


class ImageSplit(Dataset[Sample]):
    """A split that decodes an image when it is asked for."""

    def __init__(
        self,
        paths: Sequence[Path],
        places: Sequence[str],
        targets: Mapping[str, Tensor],
        shape: tuple[int, ...],
        scale: tuple[Tensor, Tensor],
        identifiers: Sequence[str | int],
    ) -> None:
        self._paths, self._places, self._shape, self._scale = paths, places, shape, scale
        self.targets = dict(targets)
        self.identifiers = list(identifiers)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        pixels = _decode(self._paths[index], self._places[index], self._shape)
        mean, spread = self._scale
        return (pixels.float() / 255 - mean) / spread, {task: target[index] for task, target in self.targets.items()}

    def decoded(self) -> "ByteSplit":
        """Return the split in memory. Pillow decodes without Python's lock, so threads do it side by side."""
        with ThreadPoolExecutor(4) as pool:
            pixels = list(pool.map(partial(_decode, shape=self._shape), self._paths, self._places))
        return ByteSplit(torch.stack(pixels), self.targets, self.identifiers, self._scale)


class ByteSplit(TensorSplit):
    """A split in memory as bytes, a quarter of what numbers take, and scaled when a batch is made."""

    def __init__(
        self,
        inputs: Tensor,
        targets: Mapping[str, Tensor],
        identifiers: Sequence[str | int],
        scale: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__(inputs, targets, identifiers)
        self._scale = scale

    def __getitem__(self, index: int) -> Sample:
        pixels, targets = super().__getitem__(index)
        return self._scaled(pixels), targets

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        pixels, targets = super().batch(indices)
        return self._scaled(pixels), targets

    def _scaled(self, pixels: Tensor) -> Tensor:
        mean, spread = self._scale
        return (pixels.float() / 255 - mean) / spread


def _scale(normalise: str, channels: int) -> tuple[Tensor, Tensor]:
    """Return what is subtracted from an image in [0, 1], and what it is divided by."""
    plain = {"none": (0.0, 1.0), "centred": (0.5, 0.5)}
    mean, spread = _IMAGENET if normalise == "imagenet" else ([value] * channels for value in plain[normalise])
    return torch.tensor(mean)[:, None, None], torch.tensor(spread)[:, None, None]


def _decode(path: Path, place: str, shape: tuple[int, ...]) -> Tensor:
    """Return an image as bytes, [channels, size, size]; an error says by `place` where the file is named."""
    channels, size, _ = shape
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise DataError(f"{place}: {path} has {opened.mode} pixels; only 8 bits per channel can be read")
            image = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
            pixels = numpy.array(image.resize((size, size), Image.Resampling.BILINEAR))
    # What Pillow raises for a broken file depends on its format.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: {path} is not a readable image: {error}") from error
    return torch.from_numpy(pixels.reshape(size, size, channels)).permute(2, 0, 1).contiguous()
