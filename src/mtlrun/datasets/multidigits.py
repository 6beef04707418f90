"""multidigits: scikit-learn's 1 797 real handwritten digits, overlaid in pairs as in MultiMNIST.

Needs no files and no network. The construction follows Sener & Koltun, "Multi-Task Learning as Multi-Objective
Optimization" (NeurIPS 2018), section 5.1: two digits overlap, one moved to the upper left and one to the lower right,
the brighter pixel wins, and the canvas is resized.
"""

import gzip
import importlib.util
from pathlib import Path
from typing import Annotated

import numpy
import torch

from mtlrun.config.bounds import Bounds, Seed32, checked
from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.generation.overlay import draw_partners, overlay
from mtlrun.datasets.generation.room import check_room
from mtlrun.datasets.generation.splitting import stratified_split

_SIDE = 8  # pixels of a source image


class MultiDigits(MultiTaskDataset):
    """Pairs of overlapping digits; the tasks are to classify the `left` and the `right` one (10 classes each).

    The single digits are split 60/20/20, stratified by class, before pairs are drawn, so no digit is in two splits. The
    id of a sample is [left, right], the positions of its digits in scikit-learn's dataset.

    Args:
        pairs_per_image: number of partners of each digit; in each pair it is the left one.
        shift: offset between the two digits, 0 to 8, in pixels of the 8 x 8 source images.
        size: side of the resized image in pixels.
        pairs_seed: fixes splits and pairs; the run's seed does not.
        cache: `memory`; `device`: samples lie on the GPU; `auto`: there if it has room for them.
    """

    task_names = ("left", "right")
    pixel_statistics = (0.338, 0.344)  # of the training pairs

    @checked
    def __init__(
        self,
        pairs_per_image: Annotated[int, Bounds(1, 10_000, limit=True)] = 10,
        shift: Annotated[int, Bounds(0, _SIDE)] = 2,
        size: Annotated[int, Bounds(_SIDE, 1000, limit=True)] = 28,
        pairs_seed: Seed32 = 0,
        cache: TensorCache = "auto",
    ) -> None:
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        self.input_shape = (1, size, size)
        self._pairs_per_image = pairs_per_image
        self._shift = shift
        self._size = size
        self._pairs_seed = pairs_seed
        images, labels = _load_digits()
        self._images = torch.tensor(images, dtype=torch.float32) / 16.0  # 16 grey levels to [0, 1]
        self._labels = torch.tensor(labels, dtype=torch.int64)
        self.source_indices = self._split_sources(labels)

    def _split_sources(self, labels: numpy.ndarray) -> dict[SplitName, numpy.ndarray]:
        rest, test = stratified_split(labels, 0.2, self._pairs_seed)
        train, val = stratified_split(labels[rest], 0.25, self._pairs_seed)
        return {"train": numpy.sort(rest[train]), "val": numpy.sort(rest[val]), "test": numpy.sort(test)}

    def split(self, name: SplitName) -> TensorSplit:
        sources = self.source_indices[name]
        check_room(len(sources) * self._pairs_per_image, *self.input_shape)
        random = numpy.random.default_rng([self._pairs_seed, SPLITS.index(name)])
        left = numpy.tile(sources, self._pairs_per_image)
        right = sources[draw_partners(random, len(sources), self._pairs_per_image)]
        pairs = numpy.stack([left, right], axis=1)
        left_index, right_index = torch.from_numpy(pairs).unbind(dim=1)
        images = overlay(
            self._images[left_index],
            self._images[right_index],
            shift=self._shift,
            canvas_side=_SIDE + self._shift,
            size=self._size,
            mode="bilinear",
        )
        mean, std = self.pixel_statistics
        images.sub_(mean).div_(std)
        targets = {"left": self._labels[left_index], "right": self._labels[right_index]}
        return TensorSplit(images, targets, pairs.tolist())


def _load_digits() -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return scikit-learn's digits: images [1797, 8, 8] of 16 grey levels, and labels [1797]."""
    # Read from scikit-learn's folder: importing it, with SciPy and pandas, takes as long as importing PyTorch.
    package = importlib.util.find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or []
    files = [path for folder in folders if (path := Path(folder, "datasets", "data", "digits.csv.gz")).is_file()]
    if not files:  # a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images, digits.target
    with gzip.open(files[0], "rt") as file:
        table = numpy.loadtxt(file, delimiter=",", dtype=numpy.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
