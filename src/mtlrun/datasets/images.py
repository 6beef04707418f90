"""images: a folder of images of your own, and a table of their labels; see docs/your_data.md."""

import contextlib
import glob
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mtlrun.config.bounds import Pixels, Real, checked
from mtlrun.config.shortening import shorten
from mtlrun.datasets.base import Cache, Normalization, SplitName
from mtlrun.datasets.files.base import FileDataset
from mtlrun.datasets.files.finder import FileFinder
from mtlrun.datasets.files.images import ImageFileSplit
from mtlrun.datasets.files.pixels import UNREADABLE, Scale, channels_first, open_image
from mtlrun.datasets.files.shifting import Augmentation, Change
from mtlrun.datasets.tables.label_table import LabelTable
from mtlrun.datasets.tables.splits.division import check_groups
from mtlrun.datasets.tables.words import ColumnName, column_name
from mtlrun.errors import DataError, list_problems

logger = logging.getLogger(__name__)

# Images whose sizes are read in advance.
_LOOKED_AT = 100


class Images(LabelTable, FileDataset):
    """Image files of any format that Pillow reads, with labels in a CSV or Parquet file: one row per image.

    Inputs are [channels, size, size]: images are scaled to squares. Rows that name the same image must be in one split.

    Args:
        root: the folder in which the images are.
        labels: the CSV or Parquet file; or one for each split, {train: ..., test: ...}, val optional.
        file_column: the column that holds the path of each image below `root`.
        size: side of the images in pixels.
        channels: 1 for grey levels, 3 for colors.
        pixel_range: the values of black and white, for images of more than 8 bits per channel or of floating-point
            numbers; None for images of 8 bits. A pixel outside of it is refused.
        normalize: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained backbones expect.
        augment: how training images are changed at random, see `Augmentation`; empty for not at all.
        cache: `memory`: each split is decoded once, to bytes; `device`: these bytes lie on the GPU; `auto`: there if
            it has room for them; `none`: images are decoded whenever they are accessed.
        **rows: targets, splits, ids and weights: see `LabelTable`.
    """

    file_key = "labels"

    @checked
    def __init__(
        self,
        root: str | None,
        labels: str | Mapping[str, str] | None,
        file_column: ColumnName = "file",
        size: Pixels = 64,
        channels: Literal[1, 3] = 3,
        pixel_range: Sequence[Real] | None = None,
        normalize: Normalization = "centered",
        augment: Sequence[Change] = ("shift",),
        cache: Cache = "auto",
        **rows: Any,
    ) -> None:
        FileDataset.__init__(self, cache)
        if root is None:
            raise ValueError("root must name the folder of the images, as in dataset.root=photos, found null")
        if labels is None:
            raise ValueError("labels must name a CSV or Parquet file with a row per image, found null")
        if pixel_range is not None and not (len(pixel_range) == 2 and pixel_range[0] < pixel_range[1]):
            raise ValueError(
                "pixel_range must be null, or the values of black and white, as in [0, 65535], found "
                f"{shorten(pixel_range)}"
            )
        if normalize == "imagenet" and channels != 3:
            raise ValueError(f"normalize must be none or centered with channels={channels}, found imagenet")
        self._augmentation = Augmentation(augment)
        LabelTable.__init__(self, labels, **rows)
        file_column = column_name(file_column, "file_column")
        self.table.require(file_column, "dataset.file_column")
        self.input_shape = (channels, size, size)
        self.normalization = normalize
        self._scale = Scale(normalize, channels)
        self._range = None if pixel_range is None else (float(pixel_range[0]), float(pixel_range[1]))
        #: Where each row names its file, for errors.
        self._places = [self.table.where(file_column, row) for row in range(len(self.table))]
        self._paths = self._find(root, self.table.texts(file_column))
        advice = f"dataset.group_column={file_column} keeps the rows of an image together where splits are drawn"
        check_groups(self.table, file_column, self.rows, "image", advice)
        suffixes = sorted({path.suffix for path in self._paths})
        self.notes = [*self.notes, *self._augmentation.describe(size), *_describe_sizes(self._paths, size)]
        self.data_paths = [*self.data_paths, *(f"{glob.escape(root)}/**/*{glob.escape(suffix)}" for suffix in suffixes)]

    def _find(self, root: str, cells: Sequence[str | None]) -> list[Path]:
        """Return the file of each row.

        Raises:
            DataError: there is no such folder; or of the rows without a file, the first ones of which are listed.
        """
        if not Path(root).is_dir():
            raise DataError(f"dataset.root={root}: there is no such folder, as seen from {Path.cwd()}")
        finder, paths = FileFinder(root), []
        problems: list[str] = []
        for place, cell in zip(self._places, cells, strict=True):
            try:
                path = None if cell is None else finder.find(cell)
            except DataError as error:
                problems.append(f"{place}: {error}")
                continue
            if path is None:
                problems.append(
                    f"{place}: " + ("the cell is empty" if cell is None else f"there is no file {root}/{cell}")
                )
            else:
                paths.append(path)
        if problems:
            advice = f"dataset.file_column holds paths below dataset.root={root}"
            raise DataError(
                list_problems([f"{problem}; {advice}" for problem in problems[:1]] + problems[1:], "rows name no file")
            )
        if finder.corrected:
            logger.info(
                "dataset.file_column: %d of %d images were found under another ending, case or slash",
                finder.corrected,
                len(paths),
            )
        return paths

    def learned(self) -> dict[str, Any]:
        channels, size, _ = self.input_shape
        scale = {"normalize": self.normalization, **self._scale.as_plain()}
        pixels = {"channels": channels, "size": size, "pixel_range": self._range or [0, 255], **scale}
        return {**super().learned(), "inputs": pixels}

    def files(self, name: SplitName) -> "ImageSplit":
        rows = self.rows[name].tolist()
        paths, places = [self._paths[row] for row in rows], [self._places[row] for row in rows]
        augmentation = self._augmentation if name == "train" and self._augmentation else None
        return ImageSplit(
            paths, places, self.input_shape, self._scale, self._range, augmentation=augmentation, **self.labels(name)
        )


def _describe_sizes(paths: Sequence[Path], size: int) -> list[str]:
    """Return a sentence if images are enlarged; broken files are for others to report."""
    sides = []
    for path in paths[:_LOOKED_AT]:
        with contextlib.suppress(*UNREADABLE), open_image(path) as image:
            sides.append(max(image.size))
    if not sides or max(sides) >= size:
        return []
    looked = "all" if len(sides) == len(paths) else f"the first {len(sides)}"
    return [
        f"images are enlarged to {size} x {size} pixels: of {looked} images none has a side of more than {max(sides)}; "
        f"dataset.size={max(sides)} trains faster"
    ]


class ImageSplit(ImageFileSplit):
    """A split of image files that a table names.

    Args:
        paths: of the files, [num_samples].
        places: the cells of the table that name them, for errors.
        shape, scale, augmentation and others: see `ImageFileSplit`.
        pixel_range: see `Images`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        places: Sequence[str],
        shape: tuple[int, ...],
        scale: Scale,
        pixel_range: tuple[float, float] | None = None,
        **labels: Any,
    ) -> None:
        super().__init__(shape, scale, **labels)
        self._paths, self._places, self._range = paths, places, pixel_range
        self.pixel_type = torch.uint8 if pixel_range is None else torch.float32

    def pixels(self, index: int) -> Tensor:
        try:
            return read_pixels(self._paths[index], self._shape, self._range)
        except DataError as error:
            raise DataError(f"{self._places[index]}: {error}") from error


def read_pixels(path: Path, shape: tuple[int, ...], pixel_range: tuple[float, float] | None) -> Tensor:
    """Return an image file, upright and resized to a square, [channels, size, size].

    Bytes, or with a `pixel_range` float32 in [0, 1].

    Args:
        path: of the file.
        shape: of the result.
        pixel_range: see `Images`.

    Raises:
        DataError: it is no image, or its pixels are not of that kind.
    """
    try:
        with open_image(path) as image:
            upright = ImageOps.exif_transpose(image)
            return _bytes(upright, shape) if pixel_range is None else _numbers(upright, shape, pixel_range)
    except _PixelError as error:
        raise DataError(f"{path} {error}") from error
    except UNREADABLE as error:
        raise DataError(f"{path} is not a readable image: {error}") from error


class _PixelError(Exception):
    """Error for pixels that the config does not allow."""


def _bytes(image: Image.Image, shape: tuple[int, ...]) -> Tensor:
    """Return an image of 8 bits per channel as bytes, [channels, size, size]."""
    if _is_deep(image):
        values = numpy.asarray(image)
        raise _PixelError(
            f"has pixels of more than 8 bits ({image.mode}, from {values.min():g} to {values.max():g}); set "
            "dataset.pixel_range to the values of black and white, such as [0,65535]"
        )
    channels, size, _ = shape
    image = image.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BILINEAR)
    return channels_first(numpy.array(image).reshape(size, size, channels))


def _numbers(image: Image.Image, shape: tuple[int, ...], pixel_range: tuple[float, float]) -> Tensor:
    """Return an image as numbers in [0, 1], float32 [channels, size, size]."""
    low, high = pixel_range
    if not _is_deep(image):
        raise _PixelError(
            f"has pixels of 8 bits ({image.mode}), and dataset.pixel_range={[low, high]} is for images of more; leave "
            "it out for a folder of 8 bits, and do not mix the two"
        )
    values = numpy.asarray(image).astype(numpy.float32)
    if not (values.min() >= low and values.max() <= high):  # also false for NaN
        raise _PixelError(
            f"has pixels from {values.min():g} to {values.max():g}, outside of dataset.pixel_range={[low, high]}"
        )
    channels, size, _ = shape
    scaled = Image.fromarray((values - low) / (high - low)).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(numpy.array(scaled)).expand(channels, size, size)


def _is_deep(image: Image.Image) -> bool:
    """Return True if the pixels are whole numbers of more than 8 bits, or floating-point numbers."""
    return image.mode.startswith(("I", "F"))
