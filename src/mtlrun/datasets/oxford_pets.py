"""Oxford-IIIT Pet: cats and dogs; breed, species, and which pixels show the animal."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torchvision.datasets import OxfordIIITPet

from mtlrun.config.bounds import OpenFraction, Pixels, Seed, checked
from mtlrun.datasets.base import BatchSplit, Cache, Normalization, Sample, SplitName
from mtlrun.datasets.batches.copying import send
from mtlrun.datasets.files.base import FileDataset, FileSplit
from mtlrun.datasets.files.images import ClassifiedImages, decode, decode_all, find_missing
from mtlrun.datasets.files.pixels import ByteSplit, Scale
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.errors import DataError

_FOLDER = "oxford-iiit-pet"  # where torchvision puts its download
_ADVICE = (
    f"oxford_pets needs {{images,annotations,annotations/trimaps}} in <root>/{_FOLDER}, as torchvision has it, from "
    "https://www.robots.ox.ac.uk/~vgg/data/pets; set dataset.root, or dataset.download=true"
)


class OxfordPets(FileDataset):
    """3 680 images to train on and 3 669 to test on, in the official partition; three tasks.

    Source: Parkhi et al., "Cats and Dogs" (CVPR 2012). The validation split is a fraction of `trainval`, stratified by
    breed. Images and trimaps are scaled to squares. With cache=none the loader should have several workers
    (runtime.num_workers). Targets:

    - breed: one of 37.
    - species: 0 for cats, 1 for dogs.
    - segmentation: int64 [size, size], 0 for the animal, 1 for the background, 2 for the border between them.

    Args:
        root: folder that holds oxford-iiit-pet, in torchvision's layout.
        download: let torchvision download 800 MB into `root` if they are missing.
        size: side of the images in pixels.
        normalize: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained backbones expect.
        val_fraction: fraction of `trainval` that is the validation split, in (0, 1).
        split_seed: fixes which images those are; the run's seed does not.
        cache: `memory` decodes everything once, before training, into 480 MB at the default size; `device` holds these
            bytes on the GPU, `auto` does if it has room for them; `none` decodes an image whenever it is accessed.
    """

    task_names = ("breed", "species", "segmentation")

    @checked
    def __init__(
        self,
        root: str,
        download: bool = False,
        size: Pixels = 128,
        normalize: Normalization = "none",
        val_fraction: OpenFraction = 0.2,
        split_seed: Seed = 0,
        cache: Cache = "auto",
    ) -> None:
        super().__init__(cache)
        self.input_shape = (3, size, size)
        self.normalization = normalize
        self._scale = Scale(normalize)
        if download:
            try:
                OxfordIIITPet(root, download=True)
            except (OSError, RuntimeError) as error:
                raise DataError(f"oxford_pets cannot be downloaded into {root}: {error}") from error
        self._base = Path(root) / _FOLDER
        self.data_paths = [self._base / "annotations", self._base / "images"]
        trainval, test = (_read(self._base / "annotations" / f"{part}.txt") for part in ("trainval", "test"))
        val, train = split_by_class([breed for _, breed, _ in trainval], [val_fraction], split_seed)
        self._rows: dict[SplitName, list[tuple[str, int, int]]] = {
            "train": [trainval[index] for index in train],
            "val": [trainval[index] for index in val],
            "test": test,
        }
        names = [name for name, _, _ in trainval + test]
        find_missing(self._base / "images", [f"{name}.jpg" for name in names], _ADVICE)
        find_missing(self._base / "annotations" / "trimaps", [f"{name}.png" for name in names], _ADVICE)

    def files(self, name: SplitName) -> "PetFiles":
        images, trimaps = self._base / "images", self._base / "annotations" / "trimaps"
        names, breeds, species = zip(*self._rows[name], strict=True) if self._rows[name] else ((), (), ())
        return PetFiles(
            ClassifiedImages(
                name,
                [images / f"{stem}.jpg" for stem in names],
                {"breed": torch.tensor(breeds, dtype=torch.int64), "species": torch.tensor(species, dtype=torch.int64)},
                self.input_shape[1],
                scale=self._scale,
            ),
            [trimaps / f"{stem}.png" for stem in names],
            self.input_shape[1],
        )


class PetFiles(FileSplit):
    """A split of images and trimaps in files.

    Args:
        images: with the classes, which are the targets without the trimaps.
        trimaps: one file for each image.
        size: side of the trimaps.
    """

    def __init__(self, images: ClassifiedImages, trimaps: Sequence[Path], size: int) -> None:
        self.sample_ids = images.sample_ids
        self._images = images
        self._trimaps = trimaps
        self._size = size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        image, targets = self._images[index]
        return image, {**targets, "segmentation": self._trimap(index)}

    def in_memory(self) -> "PetBytes":
        trimaps = decode_all(self._trimap, len(self), (self._size, self._size))
        return PetBytes(self._images.in_memory(), trimaps)

    def _trimap(self, index: int) -> Tensor:
        path, where = self._trimaps[index], self._images.where(index)
        trimap = torch.from_numpy(decode(path, self._size, where, labels=True)).long()
        if trimap.dim() != 2 or trimap.min() < 1 or trimap.max() > 3:
            raise DataError(
                f"{path} ({where}): a trimap must hold 1, 2 and 3 in one channel, "
                f"found {int(trimap.min())}..{int(trimap.max())} in the shape {tuple(trimap.shape)}"
            )
        return trimap - 1


class PetBytes(BatchSplit):
    """A split in memory, trimaps as bytes: as int64 they would take more memory than the images.

    Args:
        images: with the classes, which are the targets without the trimaps.
        trimaps: uint8 [num_samples, size, size].
    """

    same_everywhere = True

    def __init__(self, images: ByteSplit, trimaps: Tensor) -> None:
        self.sample_ids = images.sample_ids
        self._images = images
        self._trimaps = trimaps

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        image, targets = self._images[index]
        return image, {**targets, "segmentation": self._trimaps[index].long()}

    @property
    def device(self) -> torch.device:
        return self._images.device

    @property
    def nbytes(self) -> int:
        return self._images.nbytes + self._trimaps.nbytes

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        places = send(torch.as_tensor(indices), self.device)
        images, targets = self._images.batch(places)
        return images, {**targets, "segmentation": self._trimaps[places].long()}

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        moved._images, moved._trimaps = self._images.to(device), self._trimaps.to(device)
        return moved


def _read(path: Path) -> list[tuple[str, int, int]]:
    """Return (name, breed 0..36, species 0..1) of each image."""
    if not path.is_file():
        raise DataError(f"there is no {path}; {_ADVICE}")
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split()
        if len(parts) != 4 or parts[1] not in map(str, range(1, 38)) or parts[2] not in ("1", "2"):
            raise DataError(
                f"{path}, line {number}: must be a name, a breed 1..37, a species 1..2, a number; found {line!r}"
            )
        images.append((parts[0], int(parts[1]) - 1, int(parts[2]) - 1))
    if not images:
        raise DataError(f"{path} is empty; {_ADVICE}")
    return images
