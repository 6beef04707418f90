"""One batch of samples: fetched under a seed of its own, stacked, and what is said when that fails."""

import logging
import os
import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from mtlrun.datasets.base import TensorSplit
from mtlrun.errors import DataError

logger = logging.getLogger(__name__)

#: (inputs, {task: targets}), and the samples' weights where they have some.
Batch = tuple[Any, dict[str, Tensor]] | tuple[Any, dict[str, Tensor], Tensor]
#: {source: its part of a batch}, where the sources go through the model apart.
BySource = dict[str, Batch]
Loaded = Batch | BySource


@dataclass(frozen=True)
class Failure:
    """Why a worker could not give a batch: raised in its own process, the error would come with another traceback."""

    message: str


class Fetcher(Dataset[Any]):
    """Gives whole batches: item (seed, indices) is the samples at these indices, stacked.

    Random numbers that samples are made with follow from the seed; the generators are left as they were.

    Args:
        split: a map-style dataset.
        sources: {name: indices of its samples} to give {name: its part of the batch}; None for one batch of all.
        num_workers: processes that fetch.
    """

    def __init__(
        self, split: "Dataset[Any]", sources: Mapping[str, Tensor] | None = None, num_workers: int = 0
    ) -> None:
        self._split = split
        self._weights: Tensor | None = getattr(split, "weights", None)
        self._names = list(sources or {})
        self._source_of: Tensor | None = None
        if sources is not None:
            self._source_of = torch.full((len(split),), -1)  # type: ignore[arg-type]
            for number, indices in enumerate(sources.values()):
                self._source_of[indices] = number
        # Which process holds which sample: the workers write, and if one dies, this one reads.
        self._held = torch.full((num_workers, 2), -1).share_memory_() if num_workers else None

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
            DataError: a sample cannot be had.
        """
        chosen = torch.as_tensor(indices)
        with nullcontext() if isinstance(self._split, TensorSplit) else _seeded(seed):
            if self._source_of is None:
                return self._stack(chosen)
            sources = self._source_of[chosen]
            parts = {name: chosen[sources == number] for number, name in enumerate(self._names)}
            return {name: self._stack(part) for name, part in parts.items() if len(part)}

    def _stack(self, indices: Tensor) -> Batch:
        if isinstance(self._split, TensorSplit):
            inputs, targets = self._split.batch(indices)
        else:
            numbers = indices.tolist()
            inputs, targets = default_collate([self._sample(index) for index in numbers])
            check_finite(inputs, numbers, "")
        return (inputs, targets) if self._weights is None else (inputs, targets, self._weights[indices])

    def _sample(self, index: int) -> Any:
        worker = get_worker_info()
        if worker is not None and self._held is not None:
            self._held[worker.id] = torch.tensor([os.getpid(), index])
        try:
            return self._split[index]
        except DataError:
            raise
        except Exception as error:
            logger.debug("sample %d: %s", index, traceback.format_exc())
            raise DataError(f"dataset: sample {index} of the split: {type(error).__name__}: {error}") from error

    @property
    def apart(self) -> bool:
        """Whether sources are kept apart."""
        return self._source_of is not None

    def held_by(self, message: str) -> str:
        """Return which samples the processes held that an error of PyTorch's names, in words."""
        held = [] if self._held is None else [(pid, index) for pid, index in self._held.tolist() if pid >= 0]
        dead = [index for pid, index in held if str(pid) in message] or [index for _, index in held]
        return "no sample" if not dead else "sample " + " or ".join(str(index) for index in dead)


def check_finite(inputs: Any, indices: Sequence[int], split: str) -> None:
    """Raise DataError where an input holds NaN or an infinite number, which would be everywhere after one step.

    Args:
        inputs: [num_samples, ...].
        indices: of the samples in their split.
        split: its name, or nothing where that is not known.
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
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and PyTorch, and put them back."""
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
