"""tox21: twelve toxicity tests of chemical compounds, predicted from the text of their formulas."""

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor

from mtlrun.config.bounds import Bounds, Seed, checked
from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, Sample, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.tables.inputs.keys import Keys
from mtlrun.errors import DataError

_FILE = "tox21.csv.gz"
_URL = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/tox21.csv.gz"
_TESTS = (
    "NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma",
    "SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53",
)  # fmt: skip
_MISSING, _CONFLICT = -1, -2
_ANSWERS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "": _MISSING}


class Tox21(MultiTaskDataset):
    """Compounds as hashed character n-grams; the tasks are the answers of twelve laboratory tests, yes or no.

    Source: the Tox21 Data Challenge 2014, as distributed with MoleculeNet (Wu et al., Chemical Science 2018). The tasks
    have the names of the columns, with _ for -. A sixth of the answers is missing: -1.

    An input marks which strings of 2 to 5 characters occur in a SMILES formula, hashed to `num_features` indices and
    scaled to unit length. Inputs are stored sparse and made dense batch by batch. Rows with the same formula are one
    compound, with the answers of all of them; one on which they contradict each other is missing. Different formulas
    may have the same strings; how many of validation and test have those of a training compound is in the record. The
    splits are random, 80/10/10 %.

    Args:
        root: folder with tox21.csv.gz, or with moleculenet/tox21.csv.gz.
        num_features: length of an input, 2 or more.
        split_seed: fixes the splits; the run's seed does not.
        cache: `memory`, sparse; `device`: dense on the GPU, 0.5 GB at the default length; `auto`: there if it has room
            for them.

    Raises:
        DataError: the file is missing or malformed.
    """

    task_names = tuple(test.replace("-", "_") for test in _TESTS)

    @checked
    def __init__(
        self,
        root: str = "data",
        num_features: Annotated[int, Bounds(2, 10**6, limit=True)] = 16384,
        split_seed: Seed = 0,
        cache: TensorCache = "auto",
    ) -> None:
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        self.input_shape = (num_features,)
        path = _find(Path(root))
        self.data_paths = [path]
        compounds = _read(path)
        self._names, self._answers = compounds.names, compounds.answers
        if compounds.conflicts:
            self.notes = [
                f"{compounds.conflicts} answers on which the rows of a compound contradict each other count as missing"
            ]
        # Case matters: C is an atom of a chain, c one of a ring. Presence works better than counts or signed hashes.
        vectorizer = HashingVectorizer(
            analyzer="char",
            ngram_range=(2, 5),
            lowercase=False,
            n_features=num_features,
            binary=True,
            alternate_sign=False,
            dtype=numpy.float32,
        )
        self._features = vectorizer.transform(compounds.formulas)
        order = numpy.random.default_rng(split_seed).permutation(len(compounds.formulas))
        parts = numpy.split(order, [int(0.8 * len(order)), int(0.9 * len(order))])
        self._rows = {name: numpy.sort(part) for name, part in zip(SPLITS, parts, strict=True)}

    def split(self, name: SplitName) -> "SparseSplit":
        rows = self._rows[name]
        answers = torch.from_numpy(self._answers[rows])
        targets = dict(zip(self.task_names, answers.T.contiguous(), strict=True))
        return SparseSplit(self._features[rows], targets, [self._names[row] for row in rows])


class SparseSplit(TensorSplit):
    """A split whose inputs are stored as a sparse matrix; samples and batches are dense.

    Args:
        rows: float32 [num_samples, num_features], a SciPy matrix in CSR format. `to` makes all of it dense.
        targets, sample_ids: see `Split`.
    """

    same_everywhere = True
    holds_inputs = False

    def __init__(self, rows: Any, targets: dict[str, Tensor], sample_ids: Sequence[Any] | None = None) -> None:
        super().__init__(torch.arange(rows.shape[0]), targets, sample_ids)  # the inputs are row numbers
        self._matrix = rows

    def __getitem__(self, index: int) -> Sample:
        row, targets = super().__getitem__(index)
        return self._dense(row[None])[0], targets

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        rows, targets = super().batch(indices)
        return self._dense(rows), targets

    def keys(self) -> Keys | None:
        if self._matrix is None:
            return super().keys()
        matrix = self._matrix.sorted_indices()
        rows = numpy.split(matrix.indices, matrix.indptr[1:-1])  # where the numbers other than zero are
        values = numpy.split(matrix.data, matrix.indptr[1:-1])
        return numpy.array(
            [hash((row.tobytes(), value.tobytes())) for row, value in zip(rows, values, strict=True)]
        ).astype(numpy.uint64)

    @property
    def nbytes(self) -> int:
        if self._matrix is None:
            return super().nbytes
        rows, columns = self._matrix.shape
        return super().nbytes + int(rows * columns * self._matrix.dtype.itemsize)

    def _dense(self, rows: Tensor) -> Tensor:
        return rows if self._matrix is None else torch.from_numpy(self._matrix[rows.numpy()].toarray())

    def to(self, device: torch.device | str) -> Self:
        moved = super().to(device)
        moved.inputs, moved._matrix = self._dense(self.inputs).to(device), None
        return moved


def _find(root: Path) -> Path:
    """Return the path of the file."""
    paths = [root / _FILE, root / "moleculenet" / _FILE]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"dataset: no file {paths[0]} or {paths[1]}; set dataset.root, or fetch it from {_URL}")
    return path


@dataclass(frozen=True)
class Compounds:
    """The compounds of the file, one for each formula.

    Args:
        names: of the first row of each.
        formulas: as SMILES.
        answers: int64 [num_compounds, 12].
        conflicts: number of answers that are missing because the rows of a compound contradict each other.
    """

    names: list[str]
    formulas: list[str]
    answers: numpy.ndarray
    conflicts: int


def _read(path: Path) -> Compounds:
    """Return the compounds; rows of the same formula are merged."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"dataset: {path} cannot be unpacked: {error}; fetch it anew from {_URL}") from error
    table = csv.DictReader(io.StringIO(text))
    lacking = [column for column in (*_TESTS, "mol_id", "smiles") if column not in (table.fieldnames or ())]
    if lacking:
        raise DataError(f"dataset: {path} lacks the columns {', '.join(lacking)}; fetch it anew from {_URL}")
    compounds: dict[str, tuple[str, list[list[int]]]] = {}  # by formula: the first name, and the answers of all rows
    for number, row in enumerate(table, start=2):
        if not row["smiles"]:
            raise DataError(f"dataset: {path}, line {number}: no formula in the column smiles")
        for test in _TESTS:
            if row[test] not in _ANSWERS:
                raise DataError(f"dataset: {path}, line {number}: {test} must be 0, 1 or empty, found {row[test]!r}")
        _, rows = compounds.setdefault(row["smiles"], (row["mol_id"], []))
        rows.append([_ANSWERS[row[test]] for test in _TESTS])
    if len(compounds) < 10:
        raise DataError(f"dataset: {path} holds {len(compounds)} different formulas, and 10 or more are needed")
    names, repeats = zip(*compounds.values(), strict=True)
    merged = [[_merge(cells) for cells in zip(*rows, strict=True)] for rows in repeats]
    conflicts = sum(answer == _CONFLICT for answers in merged for answer in answers)
    answers = [[max(answer, _MISSING) for answer in row] for row in merged]
    return Compounds(list(names), list(compounds), numpy.array(answers, dtype=numpy.int64), conflicts)


def _merge(answers: Sequence[int]) -> int:
    """Return the answer that all rows of a compound have to a test, apart from missing ones."""
    known = set(answers) - {_MISSING}
    return known.pop() if len(known) == 1 else _CONFLICT if known else _MISSING
