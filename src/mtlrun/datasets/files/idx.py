"""Reader of MNIST and FashionMNIST: four IDX files each, in torchvision's layout."""

import gzip
import zlib
from pathlib import Path
from typing import Literal

import numpy
import torch
import torchvision
from torch import Tensor

from mtlrun.errors import DataError

Source = Literal["mnist", "fashion"]
Part = Literal["train", "t10k"]

SIDE = 28  # pixels of an image
FOLDERS: dict[Source, str] = {"mnist": "MNIST", "fashion": "FashionMNIST"}
_UNSIGNED_BYTES = 8  # the code of the type, in the third byte of a file


def fetch(root: Path, source: Source) -> None:
    """Let torchvision download missing files, into `root`/MNIST/raw or `root`/FashionMNIST/raw.

    Raises:
        DataError: the download failed.
    """
    name = FOLDERS[source]
    try:
        getattr(torchvision.datasets, name)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"dataset.download: {name} could not be fetched into {root}: {reason}") from error


def read_part(root: Path, source: Source, part: Part) -> tuple[Tensor, Tensor]:
    """Return images, uint8 [n, 28, 28], and labels, int64 [n], of the training (`train`) or test part (`t10k`).

    Raises:
        DataError: a file is missing, truncated, or no IDX file of this kind.
    """
    folder = root / FOLDERS[source] / "raw"
    images = _read(folder / f"{part}-images-idx3-ubyte", (SIDE, SIDE))
    labels = _read(folder / f"{part}-labels-idx1-ubyte", ())
    if len(images) != len(labels):
        raise DataError(f"dataset: {folder} has {len(images)} images and {len(labels)} labels in its {part} files")
    return torch.from_numpy(images), torch.from_numpy(labels.astype(numpy.int64))


def _read(path: Path, item_shape: tuple[int, ...]) -> numpy.ndarray:
    """Return the items of an IDX file, uint8 [n, *item_shape]; `path`.gz is read if `path` is missing.

    The header is two zero bytes, the type, the number of dimensions, and each dimension as 4 bytes, big-endian.
    """
    packed = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"dataset: no file {path}; set dataset.root to the folder that holds {path.parent.parent.name}/raw with "
            "the IDX files in torchvision's layout, or let torchvision fetch them: dataset.download=true"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"dataset: {path} cannot be read: {error}") from error
    start = 4 * (2 + len(item_shape))
    header = numpy.frombuffer(content[: min(start, len(content) // 4 * 4)], dtype=">i4").tolist()
    magic = _UNSIGNED_BYTES * 256 + 1 + len(item_shape)
    if len(content) < start or header[0] != magic or tuple(header[2:]) != item_shape or header[1] < 0:
        expected = " x ".join(map(str, ("n", *item_shape)))
        raise DataError(
            f"dataset: {path} is not an IDX file of {expected} bytes (it starts with {header}); fetch it anew"
        )
    shape = (header[1], *item_shape)
    size = start + int(numpy.prod(shape))
    if len(content) != size:
        raise DataError(f"dataset: {path} has {len(content)} bytes, and its header says {size}; fetch it anew")
    return numpy.frombuffer(content, dtype=numpy.uint8, offset=start).reshape(shape).copy()
