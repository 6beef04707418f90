"""Pascal VOC in its original layout: lists of images, and their annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from mtlrun.datasets.files.finder import below
from mtlrun.errors import DataError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
FOLDER = "VOCdevkit"


@dataclass(frozen=True)
class VOCImage:
    """An image of one year.

    Args:
        base: folder of the year.
        name: of the image, without a suffix.
    """

    base: Path
    name: str

    @property
    def image(self) -> Path:
        """The file of the image."""
        return self.base / "JPEGImages" / f"{self.name}.jpg"

    @property
    def annotation(self) -> Path:
        """The file with the objects in the image."""
        return self.base / "Annotations" / f"{self.name}.xml"


def list_path(root: str, year: int, part: str) -> Path:
    """Return the path of the list of the images of `part` (train, val, trainval, test)."""
    return Path(root) / FOLDER / f"VOC{year}" / "ImageSets" / "Main" / f"{part}.txt"


def read_list(root: str, year: int, part: str, advice: str) -> list[VOCImage]:
    """Return the images of a part; raise DataError with `advice` if their list is missing or empty."""
    path = list_path(root, year, part)
    if not path.is_file():
        raise DataError(f"there is no {path}; {advice}")
    names = path.read_text(encoding="utf-8").split()
    if not names:
        raise DataError(f"{path} is empty; {advice}")
    for name in names:
        try:
            below(path.parent, name)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return [VOCImage(path.parents[2], name) for name in names]


def read_objects(images: Sequence[VOCImage], wheres: Sequence[str], size: int) -> Tensor:
    """Return the objects of all images, float32 [num_images, max_objects, 6], as `mtlrun.tasks.Detection` takes them.

    Boxes are in pixels of images that are scaled to `size` x `size`, from edge to edge: the files count pixels from 1,
    inclusively. Difficult objects are marked as ignored, as in the challenge's evaluation.

    Args:
        images: the images whose annotations are read.
        wheres: the sample of each image in words, for errors.
        size: side of the scaled images.
    """
    objects = [_read(image.annotation, where, size) for image, where in zip(images, wheres, strict=True)]
    targets = torch.zeros(len(objects), max([1, *map(len, objects)]), 6)
    targets[..., 4] = -1
    for target, listed in zip(targets, objects, strict=True):
        if listed:
            target[: len(listed)] = torch.tensor(listed)
    return targets


def _read(path: Path, where: str, size: int) -> list[list[float]]:
    try:
        root = ElementTree.parse(path).getroot()
        width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
        if not (width >= 1 and height >= 1):
            raise ValueError(f"an image of {width:g} x {height:g} pixels")
        return [_object(node, size / width, size / height) for node in root.iter("object")]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} ({where}): not an annotation of Pascal VOC: {error}") from error


def _object(node: ElementTree.Element, per_column: float, per_row: float) -> list[float]:
    name = (node.findtext("name") or "").strip()
    if name not in CLASSES:
        raise ValueError(f"{name!r} is none of its 20 classes")
    left, top, right, bottom = (_number(node, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    if not (left <= right and top <= bottom):
        raise ValueError(f"the box [{left:g}, {top:g}, {right:g}, {bottom:g}] of a {name} has no pixels")
    difficult = float((node.findtext("difficult") or "0").strip() == "1")
    # A few boxes of 2012 begin at 0.
    low = max(left - 1, 0.0) * per_column, max(top - 1, 0.0) * per_row
    return [*low, right * per_column, bottom * per_row, float(CLASSES.index(name)), difficult]


def _number(node: ElementTree.Element, path: str) -> float:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"<{node.tag}> has no {path}")
    return float(text)
