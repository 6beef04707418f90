"""Office-31 and Office-Home: the same classes of objects in images of several domains, a task for each domain."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from mtlrun.config.bounds import Classes, Pixels, Seed, checked
from mtlrun.datasets.base import SPLITS, Cache, Normalization, SplitName
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.files.base import FileDataset
from mtlrun.datasets.files.finder import below
from mtlrun.datasets.files.images import ClassifiedImages
from mtlrun.datasets.files.pixels import Scale
from mtlrun.datasets.generation.splitting import split_by_class
from mtlrun.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png")
_ADVICE = (
    "office31 and office_home need <root>/<domain>/.../<class>/*.jpg, from "
    "https://faculty.cc.gatech.edu/~judy/domainadapt and https://www.hemanthdv.org/officeHomeDataset.html; "
    "set dataset.root"
)

Listing = list[tuple[str, int]]  # (path below the root, class)


class Office(FileDataset):
    """Objects in images of several domains; each domain is a task, and a source of the samples that carry its labels.

    Source: Saenko et al., "Adapting Visual Category Models to New Domains" (ECCV 2010); Venkateswara et al., "Deep
    Hashing Network for Unsupervised Domain Adaptation" (CVPR 2017). Neither has official splits: each domain is split
    60/20/20, stratified by class, or as given by lists. An image's class is the folder that it is in; classes are
    numbered in alphabetic order. A sample has the label of its domain's task, and -1 for the other tasks. Images are
    scaled to squares. With cache=none the loader should have several workers (runtime.num_workers).

    Args:
        root: folder that holds a folder for each domain.
        domains: {task: folder of its domain}.
        num_classes: number of classes of all domains together.
        size: side of the images in pixels.
        normalize: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained backbones expect.
        split_seed: fixes the splits; the run's seed does not.
        lists: path of text files with lines `<path below root> <class index>`, with {domain} and {split} in place of
            a domain's folder and of train, val and test; null to split at random.
        cache: `memory` decodes everything once, before training; `device` holds these bytes on the GPU, `auto` does if
            it has room for them; `none` decodes an image whenever it is accessed.
        sampling: how training batches are drawn from the domains; None to shuffle all samples together.
    """

    @checked
    def __init__(
        self,
        root: str,
        domains: Mapping[str, str],
        num_classes: Classes,
        size: Pixels = 64,
        normalize: Normalization = "none",
        split_seed: Seed = 0,
        lists: str | None = None,
        cache: Cache = "auto",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(cache)
        if not domains:
            raise ValueError("domains must name one or more folders, found none")
        if lists is not None and not ("{domain}" in lists and "{split}" in lists):
            raise ValueError(f"lists must contain {{domain}} and {{split}}, found {lists!r}")
        self.input_shape = (3, size, size)
        self.task_names = tuple(domains)
        self.sampling = sampling
        self._root = Path(root)
        self.normalization = normalize
        self._scale = Scale(normalize)
        self._files: dict[str, dict[SplitName, Listing]] = (
            _split(_find(self._root, domains, num_classes), split_seed)
            if lists is None
            else {task: _read(self._root, lists, domain, num_classes) for task, domain in domains.items()}
        )

        self.data_paths = sorted({self._root / Path(path).parts[0] for path in self._listed()})
        if lists is not None:
            self.data_paths += [_list_path(lists, domain, name) for domain in domains.values() for name in SPLITS]

    def _listed(self) -> Iterator[str]:
        """Yield the paths below the root of all images."""
        for parts in self._files.values():
            for listing in parts.values():
                yield from (path for path, _ in listing)

    def files(self, name: SplitName) -> ClassifiedImages:
        listings = {task: parts[name] for task, parts in self._files.items()}
        numbers = torch.arange(sum(map(len, listings.values())))
        sources = dict(zip(listings, numbers.split([len(listing) for listing in listings.values()]), strict=True))
        targets = {}
        for task, listing in listings.items():
            targets[task] = torch.full((len(numbers),), -1)
            targets[task][sources[task]] = torch.tensor([label for _, label in listing], dtype=torch.int64)
        paths = [path for listing in listings.values() for path, _ in listing]
        return ClassifiedImages(
            name,
            [self._root / path for path in paths],
            targets,
            self.input_shape[1],
            scale=self._scale,
            sample_ids=paths,
            sources=sources,
        )


def _find(root: Path, domains: Mapping[str, str], num_classes: int) -> dict[str, Listing]:
    """Return the images of each task's domain, in alphabetic order."""
    images: dict[str, list[Path]] = {}
    for task, domain in domains.items():
        if not (root / domain).is_dir():
            raise DataError(f"there is no folder {root / domain}; {_ADVICE}")
        images[task] = sorted(path for path in (root / domain).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not images[task]:
            raise DataError(f"{root / domain} holds no images; {_ADVICE}")
    classes = sorted({path.parent.name for paths in images.values() for path in paths})
    if len(classes) != num_classes:
        folders = ", ".join(domains.values())
        raise DataError(
            f"{root}/{{{folders}}} must hold {num_classes} folders of classes, found {len(classes)} "
            f"({classes[0]}, ..., {classes[-1]}); {_ADVICE}, or dataset.num_classes"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return {
        task: [(path.relative_to(root).as_posix(), numbers[path.parent.name]) for path in paths]
        for task, paths in images.items()
    }


def _split(images: Mapping[str, Listing], seed: int) -> dict[str, dict[SplitName, Listing]]:
    splits: dict[str, dict[SplitName, Listing]] = {}
    for task, listing in images.items():
        val, test, train = split_by_class([label for _, label in listing], [0.2, 0.2], seed)
        parts = {"train": train, "val": val, "test": test}
        splits[task] = {name: [listing[index] for index in parts[name]] for name in SPLITS}
    return splits


def _list_path(lists: str, domain: str, name: SplitName) -> Path:
    """Return the path of a list."""
    return Path(lists.replace("{domain}", domain).replace("{split}", name))


def _read(root: Path, lists: str, domain: str, num_classes: int) -> dict[SplitName, Listing]:
    """Read the three lists of a domain."""
    listings: dict[SplitName, Listing] = {}
    seen: dict[str, Path] = {}
    for name in SPLITS:
        path = _list_path(lists, domain, name)
        if not path.is_file():
            raise DataError(
                f"there is no list {path}; set dataset.lists, or dataset.lists=null for splits without lists"
            )
        listings[name] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            image, _, label = line.strip().rpartition(" ")  # a path may contain spaces
            if not image or not label.isdecimal() or int(label) >= num_classes:
                raise DataError(
                    f"{path}, line {number}: must be a path and a class 0..{num_classes - 1}, found {line!r}"
                )
            if image in seen:
                raise DataError(f"{path}, line {number}: {image} is listed in {seen[image]} already")
            try:
                file = below(root, image)
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            if not file.is_file():
                raise DataError(f"{path}, line {number}: there is no {file}; {_ADVICE}")
            seen[image] = path
            listings[name].append((image, int(label)))
    return listings
