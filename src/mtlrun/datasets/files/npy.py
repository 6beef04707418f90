"""Images and their labels at each pixel as .npy files, in the layout that MTAN's authors distribute."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from mtlrun.config.checks import check_one_of
from mtlrun.config.settings import Protocol
from mtlrun.datasets.base import FileCache, MultiTaskDataset, Sample, SplitName, TensorSplit
from mtlrun.datasets.files.augmentation import Augmented
from mtlrun.datasets.files.npy_kinds import Kind, map_file
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.errors import DataError

_SOURCE = "the preprocessed data that https://github.com/lorenmt/mtan links to"


class NpySplit(Dataset[Sample]):
    """Samples that are read from their files at each access.

    Args:
        name: of the split, for errors.
        folder: holds a folder for each kind.
        stems: names of the files, without .npy.
        kinds: of the inputs, under the name "image", and of each task.
        size: height and width.
    """

    def __init__(
        self, name: SplitName, folder: Path, stems: Sequence[str], kinds: Mapping[str, Kind], size: tuple[int, int]
    ) -> None:
        #: As files are called in the folder of each kind: train/12.
        self.sample_ids = [f"{folder.name}/{stem}" for stem in stems]
        self._name, self._folder, self._stems, self._kinds, self._size = name, folder, stems, dict(kinds), size

    def __len__(self) -> int:
        return len(self._stems)

    def _place(self, kind: Kind, index: int) -> tuple[Path, tuple[int, int], str]:
        path = self._folder / kind.folder / f"{self._stems[index]}.npy"
        return path, self._size, f" (sample {index} of the {self._name} split)"

    def __getitem__(self, index: int) -> Sample:
        found = {name: kind.read(*self._place(kind, index)) for name, kind in self._kinds.items()}
        return found.pop("image"), found

    def check(self) -> None:
        """Raise DataError where a file is truncated or of a wrong shape, or some samples have wrong values.

        Values of the others are checked when they are read: reading all would take minutes.
        """
        for index in range(len(self)):
            for kind in self._kinds.values():
                kind.open(*self._place(kind, index))
        for index in sorted({0, len(self) // 3, 2 * len(self) // 3, len(self) - 1}):
            self[index]

    def in_memory(self) -> TensorSplit:
        """Read everything."""
        image, targets = self[0]
        images = image.new_empty(len(self), *image.shape)
        stacked = {task: target.new_empty(len(self), *target.shape) for task, target in targets.items()}
        for index in range(len(self)):
            images[index], targets = self[index]
            for task, target in targets.items():
                stacked[task][index] = target
        return TensorSplit(images, stacked, self.sample_ids)


class DenseNpy(MultiTaskDataset):
    """Base of the datasets in this layout: <root>/{train,val}/<folder of a kind>/<i>.npy.

    The folder `val` is what the field reports its results on: the test split. The validation split is a share of the
    folder `train`; with `protocol="legacy"` there is none, and the test split stands in its place.

    Args:
        name: of the dataset, for errors.
        root: folder that holds `train` and `val`.
        kinds: of the inputs, under the name "image", and of each task.
        inverse_depth, augment, cache, val_fraction, split_seed, protocol: see the subclasses.
    """

    def __init__(
        self,
        name: str,
        root: str,
        kinds: Mapping[str, Kind],
        *,
        inverse_depth: bool,
        augment: bool,
        cache: FileCache,
        val_fraction: float,
        split_seed: int,
        protocol: Protocol,
    ) -> None:
        check_one_of("cache", cache, FileCache)
        check_one_of("protocol", protocol, Protocol)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must be in (0, 1), found {val_fraction}")
        if split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, found {split_seed}")
        self.task_names = tuple(task for task in kinds if task != "image")
        self._kinds, self._inverse_depth, self._augment, self.cache = kinds, inverse_depth, augment, cache
        folders = ",".join(kind.folder for kind in kinds.values())
        self._advice = f"{name} needs <root>/{{train,val}}/{{{folders}}}/<i>.npy as in {_SOURCE}; set dataset.root"
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
        height, width = self._first_size(Path(root) / "train" / kinds["image"].folder / f"{train[0]}.npy")
        self.input_shape = (3, height, width)
        self._splits: dict[SplitName, Dataset[Sample]] = {}

    def split(self, name: SplitName) -> Dataset[Sample]:
        if name == "val" and self.protocol == "legacy":
            name = "test"  # the same object: it may be large
        if name not in self._splits:
            folder, stems = self._files[name]
            files = NpySplit(name, folder, stems, self._kinds, (self.input_shape[1], self.input_shape[2]))
            if self.cache == "none":
                files.check()
            split: Dataset[Sample] = files.in_memory() if self.cache == "memory" else files
            if self._augment and name == "train":
                split = Augmented(split, inverse_depth=self._inverse_depth)
            self._splits[name] = split
        return self._splits[name]

    def _list(self, folder: Path) -> list[str]:
        """Return the names of the files, without .npy, in numeric order; the same in the folders of all kinds."""
        found: list[list[str]] = []
        for kind in self._kinds.values():
            path = folder / kind.folder
            if not path.is_dir():
                raise DataError(f"there is no folder {path}; {self._advice}")
            stems = [entry[: -len(".npy")] for entry in os.listdir(path) if entry.endswith(".npy")]
            found.append(sorted(stems, key=lambda stem: (len(stem), stem)))
            if not stems:
                raise DataError(f"{path} holds no .npy files; {self._advice}")
            odd = sorted(set(stems) ^ set(found[0]), key=lambda stem: (len(stem), stem))
            if odd:
                raise DataError(
                    f"{folder}/{{{next(iter(self._kinds.values())).folder},{kind.folder}}} must hold the same files, "
                    f"found {len(odd)} in one of them only, such as {odd[0]}.npy"
                )
        return found[0]

    def _first_size(self, path: Path) -> tuple[int, int]:
        shape = map_file(path).shape
        if len(shape) != 3 or shape[2] != 3:
            raise DataError(f"{path}: images must be of shape (height, width, 3), found {shape}")
        return shape[0], shape[1]
