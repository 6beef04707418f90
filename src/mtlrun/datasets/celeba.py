"""CelebA: faces of celebrities with 40 attributes, a binary task each."""

from pathlib import Path

import numpy
import torch

from mtlrun.config.bounds import Pixels, checked
from mtlrun.datasets.base import SPLITS, Cache, Normalization, SplitName
from mtlrun.datasets.files.base import FileDataset
from mtlrun.datasets.files.images import ClassifiedImages, find_missing
from mtlrun.datasets.files.pixels import Scale
from mtlrun.errors import DataError

# In the order of the file. The first is 5_o_Clock_Shadow there, which cannot be the name of a task.
ATTRIBUTES = (
    "Five_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)  # fmt: skip
_ATTRIBUTES, _PARTITION, _IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"
_ADVICE = (
    f"celeba needs <root>/Anno/{_ATTRIBUTES}, <root>/Eval/{_PARTITION} and <root>/Img/{_IMAGES}/*.jpg, or all three in "
    "<root>/celeba, from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; set dataset.root"
)


class CelebA(FileDataset):
    """202 599 aligned faces, 162 770 to train on, in the official partition; a task for each of `ATTRIBUTES`.

    Source: Liu et al., "Deep Learning Face Attributes in the Wild" (ICCV 2015). Targets are int64: 1 if a face has the
    attribute, 0 if not. With cache=none the loader should have several workers (runtime.num_workers).

    Args:
        root: folder with Anno, Eval and Img, as distributed, or with a folder celeba in torchvision's layout.
        size: side of the images in pixels; faces are scaled to squares, as in Sener & Koltun (NeurIPS 2018).
        normalize: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained backbones expect.
        cache: `none` decodes an image whenever it is accessed; `memory` decodes everything once, before training, into
            2.5 GB at the default size; `device` holds these bytes on the GPU, `auto` does if it has room for them.
    """

    task_names = ATTRIBUTES

    @checked
    def __init__(self, root: str, size: Pixels = 64, normalize: Normalization = "none", cache: Cache = "none") -> None:
        super().__init__(cache)
        self.input_shape = (3, size, size)
        self.normalization = normalize
        self._scale = Scale(normalize)
        attributes, partition, self._images = _find(Path(root))
        self.data_paths = [attributes, partition, self._images]
        self._names, values = _read(attributes)
        names, parts = _read(partition, header=False)
        if names != self._names:
            raise DataError(f"{partition} must list the {len(self._names)} files of {attributes}, in the same order")
        self._labels = torch.from_numpy(values)
        self._parts = parts[:, 0]
        find_missing(self._images, self._names, _ADVICE)

    def files(self, name: SplitName) -> ClassifiedImages:
        chosen = numpy.flatnonzero(self._parts == SPLITS.index(name))
        targets = {task: (self._labels[chosen, column] > 0).long() for column, task in enumerate(ATTRIBUTES)}
        paths = [self._images / self._names[index] for index in chosen]
        return ClassifiedImages(name, paths, targets, self.input_shape[1], scale=self._scale)


def _find(root: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the attributes, the partition and the images."""
    layouts = [
        (root / "Anno" / _ATTRIBUTES, root / "Eval" / _PARTITION, root / "Img" / _IMAGES),
        (root / "celeba" / _ATTRIBUTES, root / "celeba" / _PARTITION, root / "celeba" / _IMAGES),
    ]
    present = [layout for layout in layouts if layout[0].is_file()]
    if not present:
        raise DataError(f"there is no {layouts[0][0]}; {_ADVICE}")
    for path in present[0][1:]:
        if not path.exists():
            raise DataError(f"there is no {path}; {_ADVICE}")
    return present[0]


def _read(path: Path, *, header: bool = True) -> tuple[list[str], numpy.ndarray]:
    """Return the names of the images, and their numbers, int8 [num_images, 40 with a header or 1 without]."""
    lines = path.read_text(encoding="utf-8").splitlines()
    columns, allowed = (len(ATTRIBUTES), (-1, 1)) if header else (1, (0, 1, 2))
    if header:
        if len(lines) < 2 or tuple(lines[1].replace("5_o_", "Five_o_").split()) != ATTRIBUTES:
            raise DataError(f"{path}: the second line must name CelebA's 40 attributes")
        if lines[0].strip() != str(len(lines) - 2):
            raise DataError(
                f"{path}: the first line says {lines[0].strip()} images, found {len(lines) - 2}: truncated?"
            )
    rows = [line.split(maxsplit=1) for line in lines[2 if header else 0 :]]
    try:
        text = " ".join(numbers for _, numbers in rows)
        values = numpy.array(text.split(), dtype="S4").astype(numpy.int8).reshape(len(rows), columns)
        if not numpy.isin(values, allowed).all():
            raise ValueError(f"found {values.min()}..{values.max()}")
    except ValueError as error:
        numbers = ", ".join(map(str, allowed))
        raise DataError(f"{path}: each line must hold a name and {columns} of {numbers}: {error}") from error
    return [name for name, _ in rows], values
