"""cifar10_voc: classes of small images, and objects in larger ones: two sources, two tasks."""

import random
from collections.abc import Sequence

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, VOCDetection

from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import FileCache, MultiTaskDataset, Sample, SplitName
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.files.images import decode, find_missing, in_memory
from mtlrun.datasets.files.pixels import Scale, channels_first
from mtlrun.datasets.files.voc import FOLDER, VOCImage, list_path, read_list, read_objects
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.errors import DataError

_VAL_SHARE = 0.1  # of CIFAR-10's training images
_PADDING = 4  # pixels around an image of CIFAR-10 before a part of the old size is cut out
_CIFAR_ADVICE = (
    "cifar10_voc needs <root>/cifar-10-batches-py/{data_batch_1,...,data_batch_5,test_batch}, from "
    "https://www.cs.toronto.edu/~kriz/cifar.html; set dataset.root, or dataset.download=true"
)
_VOC_ADVICE = (
    f"cifar10_voc needs {{Annotations,ImageSets/Main,JPEGImages}} in <root>/{FOLDER}/VOC2007, and in VOC2012 with "
    "dataset.years=[2007,2012], from http://host.robots.ox.ac.uk/pascal/VOC; set dataset.root, or dataset.download=true"
)


class Cifar10VOC(MultiTaskDataset):
    """Classification on CIFAR-10 and detection on Pascal VOC, over one network: no image has labels of both tasks.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009); Everingham et al., "The Pascal
    Visual Object Classes (VOC) Challenge" (IJCV 2010). Images are normalized as networks that are pretrained on
    ImageNet need it. Splits have `sources`, cifar10 and voc. Targets:

    - category, of CIFAR-10: one of 10. 45 000 images to train on and 5 000 to validate on, the same number of each
      class, and the official 10 000 to test on.
    - objects, of VOC: float32 [max_objects, 6], see `mtlrun.tasks.Detection`; 20 classes, difficult objects are to be
      ignored. The official parts of 2007: 2 501 images to train on, 2 510 to validate on, 4 952 to test on; with
      years=[2007,2012] the 11 540 of 2012 are trained on as well.

    The two kinds of images differ in size, and go through the network one after the other; `input_shape` is VOC's.

    Args:
        root: folder that holds cifar-10-batches-py and VOCdevkit, the layouts of torchvision.
        download: let torchvision download 170 MB of CIFAR-10 and 900 MB of VOC 2007 (2 GB more for 2012) into `root`
            where they are not there.
        size: side in pixels to which images of VOC are scaled, each side by a factor of its own.
        cifar_size: side in pixels to which images of CIFAR-10 are scaled, from 32.
        years: of VOC: [2007] or [2007, 2012].
        augment: flip training images at random; cut those of CIFAR-10 out of themselves with 4 pixels around, as usual.
        split_seed: fixes which images of CIFAR-10 are for validation; the run's seed does not.
        cache: `none` decodes an image of VOC whenever it is needed; `memory` decodes all once, before training, into
            0.3 MB each at the default size. CIFAR-10 always lies in memory.
        sampling: how training batches are made of the two; None to shuffle all samples together.
    """

    task_names = ("category", "objects")
    inputs_differ = True

    def __init__(
        self,
        root: str,
        download: bool = False,
        size: int = 320,
        cifar_size: int = 64,
        years: Sequence[int] = (2007,),
        augment: bool = True,
        split_seed: int = 0,
        cache: FileCache = "none",
        sampling: Sampling | None = None,
    ) -> None:
        if size < 32:
            raise ValueError(f"size must be >= 32, found {size}")
        if cifar_size < 8:
            raise ValueError(f"cifar_size must be >= 8, found {cifar_size}")
        if list(years) not in ([2007], [2007, 2012]):
            raise ValueError(f"years must be [2007] or [2007, 2012], found {list(years)}")
        if split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, found {split_seed}")
        check_one_of("cache", cache, FileCache)
        self.input_shape = (3, size, size)
        self.cache, self.sampling = cache, sampling
        self._cifar_size, self._augment = cifar_size, augment
        cifar_train, cifar_test = (_read_cifar(root, train=train, download=download) for train in (True, False))
        val, train = split_by_class(cifar_train.targets, [_VAL_SHARE], split_seed)
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
        for name in parts:
            for base in {image.base for image in self._voc[name]}:
                names = [image.name for image in self._voc[name] if image.base == base]
                find_missing(base / "JPEGImages", [f"{name}.jpg" for name in names], _VOC_ADVICE)
                find_missing(base / "Annotations", [f"{name}.xml" for name in names], _VOC_ADVICE)
        self._splits: dict[SplitName, Cifar10VOCSplit] = {}

    def split(self, name: SplitName) -> "Cifar10VOCSplit":
        if name not in self._splits:
            cifar, rows = self._cifar[name]
            found = Cifar10VOCSplit(
                name, cifar, rows, self._voc[name], self._cifar_size, self.input_shape[1],
                augment=self._augment and name == "train",
            )  # fmt: skip
            if self.cache == "memory":
                found.decode()
            self._splits[name] = found
        return self._splits[name]


class Cifar10VOCSplit(Dataset[Sample]):
    """Images of CIFAR-10, then those of VOC; each with the target of its own task.

    Args:
        name: of the split, for errors.
        cifar: holds the images of CIFAR-10.
        rows: which of these are in the split.
        voc: images of VOC.
        cifar_size, size: sides of the two kinds of images.
        augment: flip and crop at random, at each access.
    """

    def __init__(
        self,
        name: SplitName,
        cifar: CIFAR10,
        rows: numpy.ndarray,
        voc: Sequence[VOCImage],
        cifar_size: int,
        size: int,
        *,
        augment: bool,
    ) -> None:
        self._pixels, self._voc = cifar.data[rows], voc
        self._cifar_size, self._size, self._augment = cifar_size, size, augment
        self._scale = Scale("imagenet")
        self._decoded: Tensor | None = None
        self._wheres = [f"sample {len(rows) + index} of the {name} split" for index in range(len(voc))]
        category = torch.full((len(rows) + len(voc),), -1)
        category[: len(rows)] = torch.tensor(cifar.targets)[torch.from_numpy(rows)]
        found = read_objects(voc, self._wheres, size)
        objects = torch.cat([torch.full((len(rows), *found.shape[1:]), torch.nan), found])
        self.targets = {"category": category, "objects": objects}
        numbers = torch.arange(len(category))
        self.sources = {"cifar10": numbers[: len(rows)], "voc": numbers[len(rows) :]}
        part = "test" if name == "test" else "train"
        self.sample_ids = [f"cifar10/{part}/{row}" for row in rows.tolist()]
        self.sample_ids += [f"{image.base.name}/{image.name}" for image in voc]

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

    def decode(self) -> None:
        """Decode all images of VOC, and keep them."""
        self._decoded = in_memory(self._large, len(self._voc), (3, self._size, self._size))

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
