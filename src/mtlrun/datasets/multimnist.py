"""multimnist, multifashion, multifashionmnist: pairs of overlapping images of MNIST and FashionMNIST."""

from pathlib import Path

import numpy
import torch

from mtlrun.config.bounds import Count, Seed, checked
from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.files.idx import FOLDERS, SIDE, Source, fetch, read_part
from mtlrun.datasets.generation.overlay import draw_partners, overlay
from mtlrun.errors import DataError

_SHIFT, _CANVAS = 6, 36


class MultiMNIST(MultiTaskDataset):
    """Pairs of overlapping images; the tasks are to classify the `left` and the `right` one (10 classes each).

    Source: Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization" (NeurIPS 2018), section 5.1, and Lin
    et al., "Pareto Multi-Task Learning" (NeurIPS 2019), section 5.2, for those with garments. As in the first paper's
    code: a canvas of 36 x 36, left image at [0:28, 0:28], right image at [6:34, 6:34], the brighter pixel wins; resized
    to 28 x 28 by the nearest pixel; divided by 255, and normalized by MNIST's mean .1307 and deviation .3081.

    Each image of a split is the left one once; its partner is drawn from the same split. The last sixth of the original
    training images (10 000) is the validation split, which the papers do not have; the test images are the test split.
    The papers did not publish their pairs, so their results can be approached, not reproduced. The id of a pair is
    [left, right], the positions of its images in their files: of the test images for the test split, else of the
    training images.

    Args:
        root: folder with MNIST/raw and FashionMNIST/raw, in torchvision's layout.
        left, right: the images on each side, `mnist` or `fashion`.
        num_train, num_val, num_test: use only the first N pairs of a split; None for all.
        pairs_seed: fixes the pairs; the run's seed does not.
        download: let torchvision download missing files.
        cache: `memory`; `device`: samples lie on the GPU; `auto`: there if it has room for them.

    Raises:
        DataError: files are missing or malformed.
    """

    input_shape = (1, SIDE, SIDE)
    pixel_statistics = (0.1307, 0.3081)
    task_names = ("left", "right")

    @checked
    def __init__(
        self,
        root: str = "data",
        left: Source = "mnist",
        right: Source = "mnist",
        num_train: Count | None = None,
        num_val: Count | None = None,
        num_test: Count | None = None,
        pairs_seed: Seed = 0,
        download: bool = False,
        cache: TensorCache = "auto",
    ) -> None:
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        self._counts: dict[SplitName, int | None] = {"train": num_train, "val": num_val, "test": num_test}
        for key, source in {"left": left, "right": right}.items():
            if source not in ("mnist", "fashion"):
                raise ValueError(f"{key} must be 'mnist' or 'fashion', found {source!r}")
        self._left, self._right, self._pairs_seed = left, right, pairs_seed
        self._images: dict[Source, dict[SplitName, TensorSplit]] = {}
        for source in dict.fromkeys([left, right]):
            if download:
                fetch(Path(root), source)
            self._images[source] = _read_splits(Path(root), source)
        self.data_paths = [Path(root) / FOLDERS[source] / "raw" for source in self._images]
        for name, count in self._counts.items():
            available = len(self._images[left][name])
            if count is not None and count > available:
                raise ValueError(f"num_{name} must be <= {available}, the images of the split, found {count}")

    def split(self, name: SplitName) -> TensorSplit:
        left, right = self._images[self._left][name], self._images[self._right][name]
        random = numpy.random.default_rng([self._pairs_seed, SPLITS.index(name)])
        if self._left == self._right:
            partners = draw_partners(random, len(left))
        else:
            partners = random.integers(0, len(right), size=len(left))
        chosen = slice(self._counts[name])
        first, second = left.inputs[chosen], right.inputs[partners[chosen]]
        pairs = overlay(first, second, shift=_SHIFT, canvas_side=_CANVAS, size=SIDE, mode="nearest-exact")
        mean, std = self.pixel_statistics
        inputs = pairs.float().div_(255).sub_(mean).div_(std)
        targets = {"left": left.targets["class"][chosen], "right": right.targets["class"][partners[chosen]]}
        positions = [left.targets["position"][chosen], right.targets["position"][partners[chosen]]]
        return TensorSplit(inputs, targets, torch.stack(positions, dim=1).tolist())


def _read_splits(root: Path, source: Source) -> dict[SplitName, TensorSplit]:
    """Return the single images of the splits, uint8 [n, 28, 28], with their class and their position in the file."""
    images, labels = read_part(root, source, "train")
    num_train = len(images) - len(images) // 6
    positions = torch.arange(len(images))
    test_images, test_labels = read_part(root, source, "t10k")
    parts = {
        "train": (images[:num_train], labels[:num_train], positions[:num_train]),
        "val": (images[num_train:], labels[num_train:], positions[num_train:]),
        "test": (test_images, test_labels, torch.arange(len(test_images))),
    }
    for name, (part, *_) in parts.items():
        if len(part) < 2:
            raise DataError(
                f"dataset: {root / FOLDERS[source]}: the {name} split has {len(part)} images, and pairs need 2 or more"
            )
    return {
        name: TensorSplit(images, {"class": labels, "position": positions})
        for name, (images, labels, positions) in ((name, parts[name]) for name in SPLITS)
    }
