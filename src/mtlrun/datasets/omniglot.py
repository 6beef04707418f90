"""omniglot_alphabets: handwritten characters; each alphabet is a task with images of its own."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

from mtlrun.config.checks import check_one_of
from mtlrun.config.suggest import suggest
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.files.pixels import UNREADABLE
from mtlrun.errors import DataError

_SETS = ("images_background_small1", "images_background_small2", "images_background", "images_evaluation")
_URL = "https://github.com/brendenlake/omniglot/tree/master/python"
_DRAWING = re.compile(r"(?:.*/)?([^/]+)/([^/]+)/\d+_(\d+)\.png")
_MEAN, _STD = 0.081, 0.219  # of the ink, over the training images at the default size

# {alphabet: {character: {drawer: (file, its bytes)}}}
Drawings = dict[str, dict[str, dict[int, tuple[str, bytes]]]]


class OmniglotAlphabets(MultiTaskDataset):
    """Drawn characters; the tasks are to tell the characters of one alphabet each.

    Source: Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction"
    (Science 2015). Each character was drawn by 20 people; within an alphabet a drawing's number stands for the same
    drawer, so that splits by number have no drawer in common: 14 for training, 3 for validation, 3 for test.

    Inputs are [1, size, size], ink bright, normalized. Targets are the character's place in its alphabet for the
    alphabet's own task and -1 for the others. A task has its alphabet's name with letters, digits and _ alone:
    Japanese_katakana for Japanese_(katakana). Splits have `sources`, {alphabet: indices of its samples}.

    Args:
        root: folder with images_background_small1 and ...2, or with images_background and images_evaluation (all 50
            alphabets), as zip files or unpacked; or with a folder omniglot or omniglot-py of these.
        alphabets: which alphabets, by the names of their tasks; None for all that there are.
        size: side of the images in pixels.
        split_seed: fixes which drawers are in which split. The dataset's own: the run's seed does not change the data.
        cache: `memory`, or `device`: the inputs lie on the GPU.
        sampling: how training batches are made of the alphabets; None to shuffle all samples together.

    Raises:
        DataError: files are absent or wrong.
    """

    def __init__(
        self,
        root: str = "data",
        alphabets: list[str] | None = None,
        size: int = 28,
        split_seed: int = 0,
        cache: TensorCache = "memory",
        sampling: Sampling | None = None,
    ) -> None:
        check_one_of("cache", cache, TensorCache)
        if size < 8:
            raise ValueError(f"size must be >= 8, found {size}")
        if split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, found {split_seed}")
        if alphabets is not None and (not alphabets or len(set(alphabets)) < len(alphabets)):
            raise ValueError(f"alphabets must be one or more different names, found {alphabets}")
        self.cache, self.sampling = cache, sampling
        self.input_shape = (1, size, size)
        drawings = _read(Path(root))
        self.task_names = tuple(sorted(drawings) if alphabets is None else alphabets)
        for name in self.task_names:
            if name not in drawings:
                hint = suggest(name, sorted(drawings), "there are")
                raise DataError(f"dataset.alphabets: no alphabet {name} in {root}; {hint}")
        self._splits = {name: _Samples() for name in SPLITS}
        for alphabet in self.task_names:
            numbers = {drawer for found in drawings[alphabet].values() for drawer in found}
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
    """Collects the samples of a split."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, str, Tensor]] = []

    def add(self, alphabet: str, label: int, file: str, image: Tensor) -> None:
        self._rows.append((alphabet, label, file, image))

    def split(self, alphabets: Sequence[str]) -> TensorSplit:
        inputs = (torch.stack([image for *_, image in self._rows])[:, None].float() / 255 - _MEAN) / _STD
        labels = torch.tensor([label for _, label, *_ in self._rows])
        own = numpy.array([alphabet for alphabet, *_ in self._rows])
        masks = {alphabet: torch.from_numpy(own == alphabet) for alphabet in alphabets}
        targets = {alphabet: torch.where(mask, labels, -1) for alphabet, mask in masks.items()}
        # As files are called within each set, wherever that lies.
        names = ["/".join(file.split("/")[-3:]) for *_, file, _ in self._rows]
        sources = {alphabet: mask.nonzero().squeeze(1) for alphabet, mask in masks.items()}
        return TensorSplit(inputs, targets, names, sources)


def _split_drawers(drawers: set[int], seed: int) -> dict[int, SplitName]:
    """Return the split of each drawer: 15 % validation and 15 % test, one or more of each, the rest training."""
    order = numpy.random.default_rng(seed).permutation(sorted(drawers)).tolist()
    number = max(1, round(0.15 * len(order)))
    found: dict[int, SplitName] = dict.fromkeys(order, "train")
    return found | dict.fromkeys(order[:number], "val") | dict.fromkeys(order[number : 2 * number], "test")


def _read(root: Path) -> Drawings:
    """Return all drawings in all sets that `root` holds; alphabets by the names of their tasks."""
    drawings: Drawings = {}
    for folder in (root, root / "omniglot", root / "omniglot-py"):
        for name in _SETS:
            for file, content in _files(folder / name):
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


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the PNG files of the set that is unpacked at `path`, or else of `path`.zip, in the order of their names."""
    archive = path.with_name(f"{path.name}.zip")
    if path.is_dir():
        for file in sorted(path.glob("*/*/*.png")):
            yield file.as_posix(), file.read_bytes()
    elif archive.is_file():
        try:
            with zipfile.ZipFile(archive) as opened:
                for name in sorted(opened.namelist()):
                    if name.endswith(".png"):
                        yield f"{archive.as_posix()}/{name}", opened.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"dataset: {archive} cannot be unpacked: {error}; fetch it anew from {_URL}") from error


def _decode(file: str, content: bytes, size: int) -> Tensor:
    """Return how much ink is where, uint8 [size, size]; in the file ink is black."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
    except UNREADABLE as error:
        raise DataError(f"dataset: {file} is not a readable image: {error}") from error
    return torch.from_numpy(255 - numpy.array(pixels))
