"""One batch of samples, fetched under its own seed and stacked, and the errors that this may cause."""

import logging
import os
import random
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from mtlrun.datasets.base import BatchSplit, SampleWeights, Split
from mtlrun.datasets.batches.copying import send
from mtlrun.datasets.batches.parts import Labeled, Labels, Part, place
from mtlrun.errors import DataError, list_problems

logger = logging.getLogger(__name__)

#: (inputs, {task: targets}); then the samples' weights, if the split has any; and which samples they are, if that says
#: which are labeled.
Batch = (
    tuple[Any, dict[str, Tensor]]
    | tuple[Any, dict[str, Tensor], SampleWeights]
    | tuple[Any, dict[str, Tensor], SampleWeights, Part]
)
#: {source: its samples of a batch}, if each source goes through the model separately.
PerSource = dict[str, Batch]
Loaded = Batch | PerSource
# For how long samples that cannot be read are looked for, once there is one; then the run ends.
_SEARCH_SECONDS = 10.0


@dataclass(frozen=True)
class Failure:
    """The reason why a worker has no batch, as a value, since PyTorch adds the worker's traceback to exceptions."""

    message: str


class Fetcher(Dataset[Any]):
    """A dataset of whole batches: item (seed, indices) is the samples at these indices, stacked.

    All random numbers that samples draw follow from the seed; the global generators are left as they were. PyTorch uses
    one thread, here as in worker processes, so that their number cannot change a sum.

    Args:
        split: the samples.
        sources: {source: indices of its samples} for batches of the form {source: its samples}; None for plain batches.
        num_workers: processes that fetch.
        labeled: {task: which samples of the split are labeled}, None for all; without those of which it is not known.
    """

    def __init__(
        self,
        split: Split,
        sources: Mapping[str, Tensor] | None = None,
        num_workers: int = 0,
        labeled: Labeled | None = None,
    ) -> None:
        self._split, self._labels = split, Labels(labeled or {})
        self._source_names = list(sources or {})
        self._source_of: Tensor | None = None
        if sources is not None:
            self._source_of = torch.full((len(split),), -1)
            for number, indices in enumerate(sources.values()):
                self._source_of[indices] = number
        self._device = split.device if isinstance(split, BatchSplit) else torch.device("cpu")
        self._weights = _placed(split.sample_weights, self._device)
        # (process, sample that it is reading) of each worker: workers write it, and this process reads it if one dies.
        self._reading = torch.full((num_workers, 2), -1).share_memory_() if num_workers else None

    @property
    def draws_nothing(self) -> bool:
        """True if samples are the same under any seed."""
        return isinstance(self._split, BatchSplit) and not self._split.is_random

    def __getitem__(self, item: tuple[int, Sequence[int] | Tensor]) -> Loaded | Failure:
        try:
            return self.fetch(*item)
        except DataError as error:
            if get_worker_info() is None:
                raise
            return Failure(str(error))

    def fetch(self, seed: int, indices: Sequence[int] | Tensor) -> Loaded:
        """Return the samples at `indices`.

        Raises:
            DataError: a sample cannot be read.
        """
        (parts,) = self.parts([torch.as_tensor(indices)])
        return self.make(seed, parts)

    def make(self, seed: int, parts: Mapping[str, Part]) -> Loaded:
        """Return the samples of `parts`, as `fetch` does."""
        with _on_one_thread(), nullcontext() if self.draws_nothing else _seeded(seed):
            batches = {source: self._stack(part) for source, part in parts.items()}
        return batches if self.per_source else batches[""]

    def parts(self, batches: Sequence[Tensor]) -> Iterable[dict[str, Part]]:
        """Return the parts of batches, which are {source: part}; without sources the key is an empty text.

        The samples are given by their indices on the CPU. For a split on a GPU all are sent there at once.
        """
        parts = (self._labels.divide(self.by_source(indices)) for indices in batches)
        return parts if self._device.type == "cpu" else place(list(parts), self._device)

    def by_source(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Return {source: those of the indices that are of its samples}, in the order of a batch; without sources all.

        A source without samples among them has no entry; without sources the key is an empty text.
        """
        chosen = torch.as_tensor(indices)
        if self._source_of is None:
            return {"": chosen}
        sources = self._source_of[chosen]
        parts = {name: chosen[sources == number] for number, name in enumerate(self._source_names)}
        return {name: part for name, part in parts.items() if len(part)}

    def _stack(self, part: Part) -> Batch:
        indices = part.indices
        if isinstance(self._split, BatchSplit):
            inputs, targets = self._split.batch(indices)
        else:
            numbers = indices.tolist()
            inputs, targets = default_collate([self._sample(index) for index in numbers])
            check_finite(inputs, numbers, "")
        if self._weights is None:
            return (inputs, targets, {}, part) if part.positions else (inputs, targets)
        if isinstance(self._weights, Tensor):
            weights: SampleWeights = self._weights[indices]
        else:
            weights = {task: of_task[indices] for task, of_task in self._weights.items()}
        return (inputs, targets, weights, part) if part.positions else (inputs, targets, weights)

    def _sample(self, index: int) -> Any:
        worker = get_worker_info()
        if worker is not None and self._reading is not None:
            self._reading[worker.id] = torch.tensor([os.getpid(), index])
        try:
            return self._split[index]
        except DataError as error:
            raise DataError(self._with_others(index, str(error))) from error
        except Exception as error:
            logger.debug("sample %d: %s", index, traceback.format_exc())
            raise DataError(f"dataset: sample {index} of the split: {type(error).__name__}: {error}") from error

    def _with_others(self, index: int, problem: str) -> str:
        """Return the problem of a sample together with those of other samples of the split, in their order.

        Other exceptions are left out, since a mistake in code is the same for all samples.
        """
        problems, stop, count = {index: problem}, time.monotonic() + _SEARCH_SECONDS, len(self._split)
        for number in range(count):
            if time.monotonic() > stop:
                rest = f"\n{count - number:,} further samples of the split have not been looked at"
                break
            try:
                self._split[number]
            except DataError as error:
                problems[number] = str(error)
            except Exception:
                continue
        else:
            rest = ""
        return list_problems([problems[number] for number in sorted(problems)], "samples cannot be read") + rest

    @property
    def per_source(self) -> bool:
        """True if batches have the form {source: its samples}."""
        return self._source_of is not None

    def samples_read_by(self, message: str) -> str:
        """Return in words the samples that were read by the worker processes that an error message names."""
        reading = [] if self._reading is None else [(pid, index) for pid, index in self._reading.tolist() if pid >= 0]
        samples = [index for pid, index in reading if str(pid) in message] or [index for _, index in reading]
        return "no sample" if not samples else "sample " + " or ".join(str(index) for index in samples)


def _placed(weights: SampleWeights | None, device: torch.device) -> SampleWeights | None:
    """Return the weights of all samples on a device."""
    if weights is None or isinstance(weights, Tensor):
        return None if weights is None else send(weights, device)
    return {task: send(of_task, device) for task, of_task in weights.items()}


def check_finite(inputs: Any, indices: Sequence[int], split: str) -> None:
    """Raise DataError if an input holds NaN or an infinite number, which one step would spread to all parameters.

    Args:
        inputs: [num_samples, ...].
        indices: of the samples in their split.
        split: its name, or an empty text if that is not known.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.sum().isfinite():
        return
    wrong = (~inputs.isfinite()).flatten(1).any(dim=1).nonzero()
    if len(wrong):
        where = f"{split} split, sample" if split else "sample"
        raise DataError(
            f"dataset: {where} {indices[int(wrong[0])]}: the input holds NaN or an infinite number; only labels may be "
            "missing"
        )


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Let PyTorch use one thread in the block."""
    number = torch.get_num_threads()
    if number == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and PyTorch, and restore their states afterwards."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds GPUs as well
            random.seed(seed)
            numpy.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
