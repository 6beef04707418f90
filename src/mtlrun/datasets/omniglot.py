"""omniglot_alphabets: handwritten characters; each alphabet is a task, and a source of images."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy
import torch
from PIL import Image
from torch import Tensor

from mtlrun.config.bounds import Bounds, Seed, checked
from mtlrun.config.checks import check_one_of
from mtlrun.config.suggest import suggest
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.files.pixels import UNREADABLE, open_image
from mtlrun.errors import DataError

_SETS = ("images_background_small1", "images_background_small2", "images_background", "images_evaluation")
_URL = "https://github.com/brendenlake/omniglot/tree/master/python"
_DRAWING = re.compile(r"(?:.*/)?([^/]+)/([^/]+)/\d+_(\d+)\.png")
_MEAN, _STD = 0.081, 0.219  # of the ink, over the training images at the default size

# {alphabet: {character: {drawer: (file, its bytes)}}}
Drawings = dict[str, dict[str, dict[int, tuple[str, bytes]]]]


class OmniglotAlphabets(MultiTaskDataset):
    """Handwritten characters; each task is to classify the characters of one alphabet.

    Source: Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction"
    (Science 2015). Each character was drawn by 20 people; within an alphabet the number of a drawing identifies the
    drawer. Splits are by number, so they have no drawer in common: 14 for training, 3 for validation, 3 for test.

    Inputs are [1, size, size], with bright ink, normalized. The target is the index of the character for the task of
    its alphabet, and -1 for the others. The name of a task is that of its alphabet, reduced to letters, digits and _:
    Japanese_katakana for Japanese_(katakana). The sources are the alphabets.

    Args:
        root: folder with images_background_small1 and ...2, or with images_background and images_evaluation (all 50
            alphabets), as zip files or unpacked; or with a folder omniglot or omniglot-py of these.
        alphabets: names of the tasks whose alphabets are used; None for all.
        size: side of the images in pixels.
        split_seed: fixes which drawers are in which split; the run's seed does not.
        cache: `memory`; `device`: samples lie on the GPU; `auto`: there if it has room for them.
        sampling: how training batches are drawn from the alphabets; None to shuffle all samples together.

    Raises:
        DataError: files are missing or malformed.
    """

    @checked
    def __init__(
        self,
        root: str = "data",
        alphabets: list[str] | None = None,
        size: Annotated[int, Bounds(8, 10_000, limit=True)] = 28,
        split_seed: Seed = 0,
        cache: TensorCache = "auto",
        sampling: Sampling | None = None,
    ) -> None:
        check_one_of("cache", cache, TensorCache)
        if alphabets is not None and (not alphabets or len(set(alphabets)) < len(alphabets)):
            raise ValueError(f"alphabets must be one or more different names, found {alphabets}")
        self.cache, self.sampling = cache, sampling
        self.input_shape = (1, size, size)
        drawings = _read(Path(root))
        self.data_paths = _find_sets(Path(root))
        self.task_names = tuple(sorted(drawings) if alphabets is None else alphabets)
        for name in self.task_names:
            if name not in drawings:
                hint = suggest(name, sorted(drawings), "there are")
                raise DataError(f"dataset.alphabets: no alphabet {name} in {root}; {hint}")
        self._splits = {name: _Samples() for name in SPLITS}
        for alphabet in self.task_names:
            numbers = {drawer for by_drawer in drawings[alphabet].values() for drawer in by_drawer}
            if len(numbers) < 3:
                raise DataError(
                    f"dataset: {alphabet} in {root} has {len(numbers)} drawings per character, of 3 or more"
                )
            drawers = _split_drawers(numbers, split_seed)
            for label, character in enumerate(sorted(drawings[alphabet])):
                for drawer, (file, content) in sorted(drawings[alphabet][character].items()):
                    self._splits[drawers[drawer]].add(alphabet, label, file, _decode(file, content, size))

    def split(self, name: SplitName) -> TensorSplit:
        return self._splits[name].split(self.task_names)


class _Samples:
    """A collector of the samples of a split."""

    def __init__(self) -> None:
        self._samples: list[tuple[str, int, str, Tensor]] = []

    def add(self, alphabet: str, label: int, file: str, image: Tensor) -> None:
        self._samples.append((alphabet, label, file, image))

    def split(self, alphabets: Sequence[str]) -> TensorSplit:
        inputs = (torch.stack([image for *_, image in self._samples])[:, None].float() / 255 - _MEAN) / _STD
        labels = torch.tensor([label for _, label, *_ in self._samples])
        alphabet_of = numpy.array([alphabet for alphabet, *_ in self._samples])
        masks = {alphabet: torch.from_numpy(alphabet_of == alphabet) for alphabet in alphabets}
        targets = {alphabet: torch.where(mask, labels, -1) for alphabet, mask in masks.items()}
        # The path within each set, wherever that lies.
        sample_ids = ["/".join(file.split("/")[-3:]) for *_, file, _ in self._samples]
        sources = {alphabet: mask.nonzero().squeeze(1) for alphabet, mask in masks.items()}
        return TensorSplit(inputs, targets, sample_ids, sources)


def _split_drawers(drawers: set[int], seed: int) -> dict[int, SplitName]:
    """Return the split of each drawer: 15 % validation and 15 % test, at least one of each, the rest training."""
    order = numpy.random.default_rng(seed).permutation(sorted(drawers)).tolist()
    number = max(1, round(0.15 * len(order)))
    splits: dict[int, SplitName] = dict.fromkeys(order, "train")
    return splits | dict.fromkeys(order[:number], "val") | dict.fromkeys(order[number : 2 * number], "test")


def _read(root: Path) -> Drawings:
    """Read all drawings of all sets in `root`; alphabets by the names of their tasks."""
    drawings: Drawings = {}
    for path in _find_sets(root):
        for file, content in _files(path):
            if match := _DRAWING.fullmatch(file):
                alphabet, character, drawer = match.groups()
                characters = drawings.setdefault(re.sub(r"\W", "", alphabet), {})
                # Greek and Latin are in both of the small sets.
                characters.setdefault(character, {}).setdefault(int(drawer), (file, content))
    if not drawings:
        raise DataError(
            f"dataset: no images_background_small1.zip in {root} or {root / 'omniglot'}, nor another set of Omniglot "
            f"with <alphabet>/<character>/*.png; set dataset.root, or fetch the zip files from {_URL}"
        )
    return drawings


def _find_sets(root: Path) -> list[Path]:
    """Return the folder of each set in `root`, or else its zip file."""
    paths = [folder / name for folder in (root, root / "omniglot", root / "omniglot-py") for name in _SETS]
    found = [path if path.is_dir() else path.with_name(f"{path.name}.zip") for path in paths]
    return [path for path in found if path.exists()]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the PNG files of a set, a folder or a zip file, in the order of their names."""
    if path.is_dir():
        for file in sorted(path.glob("*/*/*.png")):
            yield file.as_posix(), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as opened:
            for name in sorted(opened.namelist()):
                if name.endswith(".png"):
                    yield f"{path.as_posix()}/{name}", opened.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"dataset: {path} cannot be unpacked: {error}; fetch it anew from {_URL}") from error


def _decode(file: str, content: bytes, size: int) -> Tensor:
    """Return the ink of a drawing, uint8 [size, size], bright although it is black in the file."""
    try:
        with open_image(io.BytesIO(content)) as image:
            pixels = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
    except UNREADABLE as error:
        raise DataError(f"dataset: {file} is not a readable image: {error}") from error
    return torch.from_numpy(255 - numpy.array(pixels))
