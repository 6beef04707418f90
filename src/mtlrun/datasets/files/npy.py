"""Images with dense labels as .npy files, in the layout that MTAN's authors distribute."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtlrun.config.bounds import OpenFraction, Seed, checked
from mtlrun.config.checks import check_one_of
from mtlrun.config.settings import Protocol
from mtlrun.datasets.base import BatchSplit, Cache, Normalization, Sample, Split, SplitName, TensorSplit
from mtlrun.datasets.files.augmentation import Augmented, AugmentedInMemory
from mtlrun.datasets.files.base import FileDataset, FileSplit
from mtlrun.datasets.files.npy_kinds import Kind, map_file
from mtlrun.datasets.files.pixels import Scale
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.errors import DataError

_SOURCE = "the preprocessed data that https://github.com/lorenmt/mtan links to"


class NpySplit(FileSplit):
    """A split of .npy files: one file for the image of a sample, and one for each of its targets.

    Args:
        name: of the split, for errors.
        folder: holds a folder for each kind.
        stems: names of the files, without .npy.
        kinds: of the inputs, under the name "image", and of each task.
        size: height and width.
        scale: normalizes images in [0, 1].
    """

    def __init__(
        self,
        name: SplitName,
        folder: Path,
        stems: Sequence[str],
        kinds: Mapping[str, Kind],
        size: tuple[int, int],
        scale: Scale,
    ) -> None:
        #: Such as train/12: the folder of the split, and the name of the files in each kind's folder.
        self.sample_ids = [f"{folder.name}/{stem}" for stem in stems]
        self._name, self._folder, self._stems, self._kinds, self._size = name, folder, stems, dict(kinds), size
        self._scale = scale

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, index: int) -> Sample:
        tensors = {name: kind.read(*self._location(kind, index)) for name, kind in self._kinds.items()}
        return self._scale.normalize_(tensors.pop("image")), tensors

    def check(self) -> None:
        """Raise DataError if a file is truncated or has a wrong shape, or some samples have wrong values.

        The values of the other samples are checked when they are read: to read all of them would take minutes.
        """
        for index in range(len(self)):
            for kind in self._kinds.values():
                kind.open(*self._location(kind, index))
        for index in sorted({0, len(self) // 3, 2 * len(self) // 3, len(self) - 1}):
            self[index]

    def in_memory(self) -> TensorSplit:
        image, targets = self[0]
        images = image.new_empty(len(self), *image.shape)
        stacked = {task: target.new_empty(len(self), *target.shape) for task, target in targets.items()}
        for index in range(len(self)):
            images[index], targets = self[index]
            for task, target in targets.items():
                stacked[task][index] = target
        return TensorSplit(images, stacked, self.sample_ids)

    def _location(self, kind: Kind, index: int) -> tuple[Path, tuple[int, int], str]:
        path = self._folder / kind.folder / f"{self._stems[index]}.npy"
        return path, self._size, f" (sample {index} of the {self._name} split)"


class DenseNpy(FileDataset):
    """Base of the datasets in this layout: <root>/{train,val}/<folder of a kind>/<i>.npy.

    The files hold any numeric type, channels last; their images are in [0, 1], or in 0..255 if of whole numbers. The
    folder `val` is what the field reports its results on: the test split. The validation split is a fraction of the
    folder `train`; with `protocol="legacy"` there is none, and the test split takes its place.

    A subclass sets `name`, `kinds` and `inverse_depth`.

    Args:
        root: folder that holds `train` and `val`.
        augment: crop, scale and flip training images at random, see `mtlrun.datasets.files.augmentation`.
        normalize: `none` for [0, 1], as in the literature, `centered` for [-1, 1], `imagenet` for what pretrained
            backbones expect.
        cache: `memory` reads everything once, before training; `device` then moves it to the GPU, where training images
            are also augmented; `auto` does if it has room for it, and they are not; `none` reads each sample when it is
            accessed.
        val_fraction: fraction of the folder `train` that is the validation split, in (0, 1).
        split_seed: fixes which images those are; the run's seed does not.
        protocol: `standard` selects on the validation split and evaluates the test split once. `legacy` gives what the
            literature prints: all of the folder `train` is trained on, the test split is evaluated during training, and
            the result is the mean over the last 10 evaluations, marked as test-selected; val_fraction and split_seed
            then have no effect.
    """

    #: Name of the dataset, for errors.
    name: str
    #: The files of the inputs, under the name "image", and of each task.
    kinds: Mapping[str, Kind]
    #: True if the target depth is inverse depth.
    inverse_depth = False

    @checked
    def __init__(
        self,
        root: str,
        augment: bool = True,
        normalize: Normalization = "none",
        cache: Cache = "none",
        val_fraction: OpenFraction = 0.1,
        split_seed: Seed = 0,
        protocol: Protocol = "standard",
    ) -> None:
        super().__init__(cache)
        check_one_of("protocol", protocol, Protocol)
        self.task_names = tuple(task for task in self.kinds if task != "image")
        self._augment = augment
        self.normalization = normalize
        self._scale = Scale(normalize)
        folders = ",".join(kind.folder for kind in self.kinds.values())
        self._advice = f"{self.name} needs <root>/{{train,val}}/{{{folders}}}/<i>.npy as in {_SOURCE}; set dataset.root"
        self.data_paths = [Path(root) / part / kind.folder for part in ("train", "val") for kind in self.kinds.values()]
        train, test = (self._list(Path(root) / folder) for folder in ("train", "val"))
        self._files: dict[SplitName, tuple[Path, list[str]]] = {
            "train": (Path(root) / "train", train),
            "test": (Path(root) / "val", test),
        }
        self.protocol = protocol
        if protocol == "standard":
            val, rest = split_by_class([0] * len(train), [val_fraction], split_seed)
            if not (len(val) and len(rest)):
                raise DataError(f"{root}/train: {len(train)} images leave none for one of the splits train and val")
            self._files["train"] = Path(root) / "train", [train[index] for index in rest]
            self._files["val"] = Path(root) / "train", [train[index] for index in val]
        height, width = self._first_size(Path(root) / "train" / self.kinds["image"].folder / f"{train[0]}.npy")
        self.input_shape = (3, height, width)

    def split(self, name: SplitName) -> Split:
        if name == "val" and self.protocol == "legacy":
            name = "test"  # the same object, since it may be large
        return super().split(name)

    def load(self, name: SplitName) -> Split:
        split = super().load(name)
        if self._augment and name == "train":
            if isinstance(split, BatchSplit):
                return AugmentedInMemory(split, inverse_depth=self.inverse_depth)
            return Augmented(split, inverse_depth=self.inverse_depth)
        return split

    def files(self, name: SplitName) -> NpySplit:
        folder, stems = self._files[name]
        return NpySplit(name, folder, stems, self.kinds, (self.input_shape[1], self.input_shape[2]), self._scale)

    def _list(self, folder: Path) -> list[str]:
        """Return the names of the files without .npy, in numeric order; they must be the same for all kinds."""
        names: list[list[str]] = []
        for kind in self.kinds.values():
            path = folder / kind.folder
            if not path.is_dir():
                raise DataError(f"there is no folder {path}; {self._advice}")
            stems = [entry[: -len(".npy")] for entry in os.listdir(path) if entry.endswith(".npy")]
            names.append(sorted(stems, key=lambda stem: (len(stem), stem)))
            if not stems:
                raise DataError(f"{path} holds no .npy files; {self._advice}")
            unpaired = sorted(set(stems) ^ set(names[0]), key=lambda stem: (len(stem), stem))
            if unpaired:
                raise DataError(
                    f"{folder}/{{{next(iter(self.kinds.values())).folder},{kind.folder}}} must hold the same files, "
                    f"found {len(unpaired)} in one of them only, such as {unpaired[0]}.npy"
                )
        return names[0]

    def _first_size(self, path: Path) -> tuple[int, int]:
        shape = map_file(path).shape
        if len(shape) != 3 or shape[2] != 3:
            raise DataError(f"{path}: images must be of shape (height, width, 3), found {shape}")
        return shape[0], shape[1]
