"""images: a folder of images of one's own, and a table of their labels; see docs/your_data.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from mtlrun.datasets.base import Cache, Sample, SplitName
from mtlrun.datasets.files.images import FileDataset, FileSplit
from mtlrun.datasets.files.pixels import UNREADABLE, Normalization, Scale, channels_first
from mtlrun.datasets.rows.columns import MISSING, read
from mtlrun.datasets.rows.names import identify, weigh
from mtlrun.datasets.rows.splits import check_groups, check_split_keys, split_rows
from mtlrun.datasets.rows.targets import check_target_keys, read_targets
from mtlrun.errors import DataError


class Images(FileDataset):
    """Image files of any format that Pillow reads, with labels in a CSV or Parquet file: one row per image.

    Inputs are [channels, size, size]; each side is scaled by a factor of its own. Targets and splits are those of
    `mtlrun.datasets.Table`, with the same keys; an image that several rows name must be in one split.

    Args:
        root: the folder in which the images are.
        labels: the CSV or Parquet file.
        tasks, kinds: names of the tasks, and of their classes; filled in by the YAML.
        file_column: holds the path of each image below `root`.
        size: side of the images in pixels.
        channels: 1 for grey levels, 3 for colors.
        normalize: `none` for [0, 1], `centred` for [-1, 1], `imagenet` for what pretrained backbones expect.
        cache: `memory`: each split is decoded once, to bytes; `device`: and these lie on the GPU; `none`: images are
            decoded whenever they are needed.
        targets, classes, standardize_targets, split_column, fractions, group_column, stratify, split_seed, id_column,
            weight_column, missing, separator: see `Table`.
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
        normalize: Normalization = "centred",
        cache: Cache = "memory",
        targets: Mapping[str, str | list[str]] | None = None,
        classes: Mapping[str, Sequence[Any]] | None = None,
        standardize_targets: Sequence[str] = (),
        split_column: str | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        group_column: str | None = None,
        stratify: str | None = None,
        split_seed: int = 0,
        id_column: str | None = None,
        weight_column: str | None = None,
        missing: Sequence[str] = MISSING,
        separator: str = ",",
    ) -> None:
        super().__init__(cache)
        if root is None:
            raise ValueError("root must name the folder of the images, as in dataset.root=photos, found null")
        if labels is None:
            raise ValueError("labels must name a CSV or Parquet file with a row per image, found null")
        if size < 1:
            raise ValueError(f"size must be >= 1, found {size}")
        if normalize == "imagenet" and channels != 3:
            raise ValueError(f"normalize must be none or centred with channels={channels}, found imagenet")
        check_split_keys(split_column, fractions, group_column, stratify, split_seed)
        check_target_keys(tasks, kinds, classes or {}, standardize_targets)
        table = read(labels, separator, missing)
        table.require(file_column, "dataset.file_column")
        self.rows = split_rows(
            table, split_column=split_column, fractions=fractions, group_column=group_column, stratify=stratify,
            split_seed=split_seed,
        )  # fmt: skip
        kind_of = dict(zip(tasks, kinds, strict=True))
        found = read_targets(table, self.rows, kind_of, targets or {}, classes or {}, standardize_targets)
        self.task_names = tuple(tasks)
        self.classes, self.scales, self._targets = found.classes, found.scales, found.tensors
        self.input_shape = (channels, size, size)
        self._scale = Scale(normalize, channels)
        self._places = [table.where(file_column, row) for row in range(len(table))]
        self._paths = []
        for place, cell in zip(self._places, table.texts(file_column), strict=True):
            if cell is None or not Path(root, cell).is_file():
                what = "the cell is empty" if cell is None else f"there is no file {Path(root, cell)}"
                raise DataError(f"{place}: {what}; dataset.file_column holds paths below dataset.root={root}")
            self._paths.append(Path(root, cell))
        check_groups(table, file_column, self.rows, "image")
        self._ids = identify(table, id_column)
        self._weights = weigh(table, weight_column, self.rows["train"])

    def split(self, name: SplitName) -> Dataset[Sample]:
        split = super().split(name)
        if name == "train":
            split.weights = self._weights  # type: ignore[attr-defined]
        return split

    def files(self, name: SplitName) -> "ImageSplit":
        rows = self.rows[name].tolist()
        return ImageSplit(
            [self._paths[row] for row in rows],
            [self._places[row] for row in rows],
            {task: target[rows] for task, target in self._targets.items()},
            self.input_shape,
            self._scale,
            [self._ids[row] for row in rows],
        )


class ImageSplit(FileSplit):
    """A split that decodes an image when it is asked for.

    Args:
        paths: [num_samples].
        places: where each path is named, for errors.
        targets, shape, scale, sample_ids: see `FileSplit`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        places: Sequence[str],
        targets: Mapping[str, Tensor],
        shape: tuple[int, ...],
        scale: Scale,
        sample_ids: Sequence[str | int],
    ) -> None:
        super().__init__(shape, targets, sample_ids, None, scale)
        self._paths, self._places = paths, places

    def pixels(self, index: int) -> Tensor:
        return _decode(self._paths[index], self._places[index], self._shape)


def _decode(path: Path, place: str, shape: tuple[int, ...]) -> Tensor:
    """Return an image as bytes, [channels, size, size]; an error says by `place` where the file is named."""
    channels, size, _ = shape
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise DataError(f"{place}: {path} has {opened.mode} pixels; only 8 bits per channel can be read")
            image = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
            pixels = numpy.array(image.resize((size, size), Image.Resampling.BILINEAR))
    except UNREADABLE as error:
        raise DataError(f"{place}: {path} is not a readable image: {error}") from error
    return channels_first(pixels.reshape(size, size, channels))
