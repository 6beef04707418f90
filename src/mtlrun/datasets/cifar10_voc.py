"""cifar10_voc: classification of small images and detection in larger ones, two sources with a task each."""

import copy
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, VOCDetection

from mtlrun.config.bounds import Bounds, CountOrZero, Seed, checked
from mtlrun.config.shortening import shorten
from mtlrun.datasets.base import FileCache, Sample, SplitName
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.files.base import FileDataset, FileSplit
from mtlrun.datasets.files.images import decode, decode_all, find_missing
from mtlrun.datasets.files.pixels import Scale, channels_first
from mtlrun.datasets.files.voc import FOLDER, VOCImage, list_path, read_list, read_objects
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.errors import DataError

_VAL_FRACTION = 0.1  # of CIFAR-10's training images
_PADDING = 4  # pixels added on each side of an image of CIFAR-10 before a random crop of the original size
_CIFAR_ADVICE = (
    "cifar10_voc needs <root>/cifar-10-batches-py/{data_batch_1,...,data_batch_5,test_batch}, from "
    "https://www.cs.toronto.edu/~kriz/cifar.html; set dataset.root, or dataset.download=true"
)
_VOC_ADVICE = (
    f"cifar10_voc needs {{Annotations,ImageSets/Main,JPEGImages}} in <root>/{FOLDER}/VOC2007, and in VOC2012 with "
    "dataset.years=[2007,2012], from http://host.robots.ox.ac.uk/pascal/VOC; set dataset.root, or dataset.download=true"
)


class Cifar10VOC(FileDataset):
    """Classification on CIFAR-10 and detection on Pascal VOC with one network: no image has labels of both tasks.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009); Everingham et al., "The Pascal
    Visual Object Classes (VOC) Challenge" (IJCV 2010). Images are normalized as networks that are pretrained on
    ImageNet expect. The sources are cifar10 and voc. Targets:

    - category, of CIFAR-10: one of 10. 45 000 images for training and 5 000 for validation, stratified by class, and
      the official 10 000 for test.
    - objects, of VOC: float32 [max_objects, 6], see `mtlrun.tasks.Detection`; 20 classes, difficult objects are
      ignored. The official parts of 2007: 2 501 images for training, 2 510 for validation, 4 952 for test; with
      years=[2007,2012] the 11 540 of 2012 are added to training.

    The two kinds of images differ in size, and go through the network separately; `input_shape` is VOC's.

    Args:
        root: folder that holds cifar-10-batches-py and VOCdevkit, in torchvision's layout.
        download: let torchvision download 170 MB of CIFAR-10 and 900 MB of VOC 2007 (2 GB more for 2012) into `root`
            if they are missing.
        size: side in pixels of the squares to which images of VOC are scaled.
        cifar_size: side in pixels to which images of CIFAR-10 are scaled, from 32.
        years: of VOC: [2007] or [2007, 2012].
        augment: flip training images at random; pad those of CIFAR-10 by 4 pixels and crop them at random, as usual.
        split_seed: fixes which images of CIFAR-10 are for validation; the run's seed does not.
        cache: `none` decodes an image of VOC whenever it is accessed; `memory` decodes all once, before training, into
            0.3 MB each at the default size. CIFAR-10 is always in memory.
        sampling: how training batches are drawn from the two; None to shuffle all samples together.
    """

    task_names = ("category", "objects")
    inputs_differ = True
    normalization = "imagenet"

    @checked
    def __init__(
        self,
        root: str,
        download: bool = False,
        size: Annotated[int, Bounds(32, 10_000, limit=True)] = 320,
        cifar_size: Annotated[int, Bounds(8, 10_000, limit=True)] = 64,
        years: Sequence[CountOrZero] = (2007,),
        augment: bool = True,
        split_seed: Seed = 0,
        cache: FileCache = "none",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(cache, FileCache)
        if list(years) not in ([2007], [2007, 2012]):
            raise ValueError(f"years must be [2007] or [2007, 2012], found {shorten(years)}")
        self.input_shape = (3, size, size)
        self.sampling = sampling
        self._cifar_size, self._augment = cifar_size, augment
        cifar_train, cifar_test = (_read_cifar(root, train=train, download=download) for train in (True, False))
        val, train = split_by_class(cifar_train.targets, [_VAL_FRACTION], split_seed)
        self._cifar: dict[SplitName, tuple[CIFAR10, numpy.ndarray]] = {
            "train": (cifar_train, train),
            "val": (cifar_train, val),
            "test": (cifar_test, numpy.arange(len(cifar_test.targets))),
        }
        extra = [("trainval", 2012)] if 2012 in years else []
        parts: dict[SplitName, list[tuple[str, int]]] = {
            "train": [("train", 2007), *extra],
            "val": [("val", 2007)],
            "test": [("test", 2007)],
        }
        if download:
            _download_voc(root, [*extra, ("train", 2007), ("test", 2007)])
        self._voc: dict[SplitName, list[VOCImage]] = {
            name: [image for part, year in listed for image in read_list(root, year, part, _VOC_ADVICE)]
            for name, listed in parts.items()
        }
        bases = {image.base: None for images in self._voc.values() for image in images}
        self.data_paths = [Path(root) / CIFAR10.base_folder, *bases]
        for name in parts:
            for base in {image.base for image in self._voc[name]}:
                names = [image.name for image in self._voc[name] if image.base == base]
                find_missing(base / "JPEGImages", [f"{name}.jpg" for name in names], _VOC_ADVICE)
                find_missing(base / "Annotations", [f"{name}.xml" for name in names], _VOC_ADVICE)

    def files(self, name: SplitName) -> "Cifar10VOCSplit":
        cifar, indices = self._cifar[name]
        return Cifar10VOCSplit(
            name, cifar, indices, self._voc[name], self._cifar_size, self.input_shape[1],
            augment=self._augment and name == "train",
        )  # fmt: skip


class Cifar10VOCSplit(FileSplit):
    """A split of the images of CIFAR-10, followed by those of VOC; each has the target of one task.

    Args:
        name: of the split, for errors.
        cifar: holds the images of CIFAR-10.
        indices: those of them that are in the split.
        voc: images of VOC.
        cifar_size, size: sides of the two kinds of images.
        augment: flip and crop at random, at each access.
    """

    targets: Mapping[str, Tensor]
    sample_ids: Sequence[str]

    def __init__(
        self,
        name: SplitName,
        cifar: CIFAR10,
        indices: numpy.ndarray,
        voc: Sequence[VOCImage],
        cifar_size: int,
        size: int,
        *,
        augment: bool,
    ) -> None:
        self._pixels, self._voc = cifar.data[indices], voc
        self._cifar_size, self._size, self._augment = cifar_size, size, augment
        self._scale = Scale("imagenet")
        self._decoded: Tensor | None = None
        self._wheres = [f"sample {len(indices) + index} of the {name} split" for index in range(len(voc))]
        category = torch.full((len(indices) + len(voc),), -1)
        category[: len(indices)] = torch.tensor(cifar.targets)[torch.from_numpy(indices)]
        voc_objects = read_objects(voc, self._wheres, size)
        objects = torch.cat([torch.full((len(indices), *voc_objects.shape[1:]), torch.nan), voc_objects])
        self.targets = {"category": category, "objects": objects}
        numbers = torch.arange(len(category))
        self.sources = {"cifar10": numbers[: len(indices)], "voc": numbers[len(indices) :]}
        part = "test" if name == "test" else "train"
        cifar_ids = [f"cifar10/{part}/{index}" for index in indices.tolist()]
        self.sample_ids = cifar_ids + [f"{image.base.name}/{image.name}" for image in voc]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> Sample:
        flip = self._augment and random.random() < 0.5
        if index < len(self._pixels):
            image = self._small(index)
            return self._scale(image.flip(2) if flip else image), {"category": self.targets["category"][index]}
        image, objects = self._large(index - len(self._pixels)), self.targets["objects"][index]
        if flip:
            image, objects = image.flip(2), flipped(objects, self._size)
        return self._scale(image), {"objects": objects}

    def in_memory(self) -> "Cifar10VOCSplit":
        decoded = copy.copy(self)
        decoded._decoded = decode_all(self._large, len(self._voc), (3, self._size, self._size))
        return decoded

    def _small(self, index: int) -> Tensor:
        pixels = self._pixels[index]
        if self._augment:
            height, width, _ = pixels.shape
            top, left = random.randint(0, 2 * _PADDING), random.randint(0, 2 * _PADDING)
            around = numpy.pad(pixels, ((_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
            pixels = around[top : top + height, left : left + width]
        side = self._cifar_size
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        return channels_first(numpy.array(image))

    def _large(self, index: int) -> Tensor:
        if self._decoded is not None:
            return self._decoded[index]
        return channels_first(decode(self._voc[index].image, self._size, self._wheres[index]))


def flipped(objects: Tensor, size: int) -> Tensor:
    """Return objects [n, 6] of an image whose left and right are swapped; rows without an object stay as they are."""
    turned = torch.cat([size - objects[:, 2:3], objects[:, 1:2], size - objects[:, :1], objects[:, 3:]], dim=1)
    return torch.where(objects[:, 4:5] < 0, objects, turned)


def _read_cifar(root: str, *, train: bool, download: bool) -> CIFAR10:
    try:
        return CIFAR10(root, train=train, download=download)
    except (OSError, RuntimeError) as error:
        what = f"cannot be downloaded into {root}: {error}" if download else f"is not in {root}, or not whole"
        raise DataError(f"CIFAR-10 {what}; {_CIFAR_ADVICE}") from error


def _download_voc(root: str, parts: Sequence[tuple[str, int]]) -> None:
    for part, year in parts:
        if not list_path(root, year, part).is_file():
            try:
                VOCDetection(root, str(year), part, download=True)
            except (OSError, RuntimeError) as error:
                raise DataError(
                    f"Pascal VOC {year} cannot be downloaded into {root}: {error}; {_VOC_ADVICE}"
                ) from error
