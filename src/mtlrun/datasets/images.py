"""images: a folder of images of your own, and a table of their labels; see docs/your_data.md."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy
from PIL import Image, ImageOps
from torch import Tensor

from mtlrun.datasets.base import Cache, Normalization, SplitName
from mtlrun.datasets.files.base import FileDataset
from mtlrun.datasets.files.images import ImageFileSplit
from mtlrun.datasets.files.pixels import UNREADABLE, Scale, channels_first
from mtlrun.datasets.rows.label_table import LabelTable
from mtlrun.datasets.rows.splits import check_groups
from mtlrun.errors import DataError


class Images(LabelTable, FileDataset):
    """Image files of any format that Pillow reads, with labels in a CSV or Parquet file: one row per image.

    Inputs are [channels, size, size]: images are scaled to squares. Rows that name the same image must be in one split.

    Args:
        root: the folder in which the images are.
        labels: the CSV or Parquet file.
        file_column: the column that holds the path of each image below `root`.
        size: side of the images in pixels.
        channels: 1 for grey levels, 3 for colors.
        normalize: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained backbones expect.
        cache: `memory`: each split is decoded once, to bytes; `device`: these bytes lie on the GPU; `none`: images are
            decoded whenever they are accessed.
        **rows: targets, splits, ids and weights: see `LabelTable`.
    """

    def __init__(
        self,
        root: str | None,
        labels: str | None,
        file_column: str = "file",
        size: int = 64,
        channels: Literal[1, 3] = 3,
        normalize: Normalization = "centered",
        cache: Cache = "memory",
        **rows: Any,
    ) -> None:
        FileDataset.__init__(self, cache)
        if root is None:
            raise ValueError("root must name the folder of the images, as in dataset.root=photos, found null")
        if labels is None:
            raise ValueError("labels must name a CSV or Parquet file with a row per image, found null")
        if size < 1:
            raise ValueError(f"size must be >= 1, found {size}")
        if normalize == "imagenet" and channels != 3:
            raise ValueError(f"normalize must be none or centered with channels={channels}, found imagenet")
        LabelTable.__init__(self, labels, **rows)
        self.table.require(file_column, "dataset.file_column")
        self.input_shape = (channels, size, size)
        self.normalization = normalize
        self._scale = Scale(normalize, channels)
        #: Where each row names its file, for errors.
        self._places = [self.table.where(file_column, row) for row in range(len(self.table))]
        self._paths = []
        for place, cell in zip(self._places, self.table.texts(file_column), strict=True):
            if cell is None or not Path(root, cell).is_file():
                problem = "the cell is empty" if cell is None else f"there is no file {Path(root, cell)}"
                raise DataError(f"{place}: {problem}; dataset.file_column holds paths below dataset.root={root}")
            self._paths.append(Path(root, cell))
        check_groups(self.table, file_column, self.rows, "image")
        suffixes = sorted({path.suffix for path in self._paths})
        self.data_paths = [labels, *(f"{glob.escape(root)}/**/*{glob.escape(suffix)}" for suffix in suffixes)]

    def files(self, name: SplitName) -> "ImageSplit":
        rows = self.rows[name].tolist()
        paths, places = [self._paths[row] for row in rows], [self._places[row] for row in rows]
        return ImageSplit(paths, places, self.input_shape, self._scale, **self.labels(name))


class ImageSplit(ImageFileSplit):
    """A split of image files that a table names.

    Args:
        paths: of the files, [num_samples].
        places: the cells of the table that name them, for errors.
        shape, scale, **labels: see `ImageFileSplit`.
    """

    def __init__(
        self, paths: Sequence[Path], places: Sequence[str], shape: tuple[int, ...], scale: Scale, **labels: Any
    ) -> None:
        super().__init__(shape, scale, **labels)
        self._paths, self._places = paths, places

    def pixels(self, index: int) -> Tensor:
        return _decode(self._paths[index], self._places[index], self._shape)


def _decode(path: Path, place: str, shape: tuple[int, ...]) -> Tensor:
    """Return an image as bytes, [channels, size, size]; `place`, where the file is named, begins errors."""
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
