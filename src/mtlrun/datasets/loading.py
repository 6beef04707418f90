"""Batches of a split, in an order that depends on the seed and the epoch alone, from any position on."""

import copy
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from mtlrun.datasets.base import TensorSplit
from mtlrun.datasets.sampling import Sampling, draws_per_epoch
from mtlrun.datasets.seeds import mix
from mtlrun.errors import ConfigError, DataError

Batch = tuple[Any, dict[str, Tensor]]


class Loader:
    """Gives the batches of one split.

    The order and all random augmentation follow from (seed, epoch, batch number), so a run that is continued in the
    middle of an epoch, or with another number of workers, sees exactly the same batches.

    Args:
        split: a map-style data set.
        batch_size: samples per batch; the last batch of an epoch may be smaller.
        shuffle: whether each epoch has an order of its own.
        seed: the run's seed.
        limit_batches: give only the first so many batches of each epoch; None for all.
        num_workers: processes that load; 0 loads in this one.
        pin_memory: whether batches are put into page-locked memory, for a faster copy to a GPU.
        sampling: how batches are made of the split's `sources`, {name: indices of its samples}; None to shuffle all
            samples together.
    """

    def __init__(
        self,
        split: "Dataset[Any]",
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        limit_batches: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        sampling: Sampling | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self.num_samples = len(split)  # type: ignore[arg-type]
        self._sampling = sampling
        self.sources: Mapping[str, Tensor] = getattr(split, "sources", None) or {}
        self.num_batches = -(-self.num_samples // batch_size)
        if sampling is not None:
            self.num_batches = sampling.num_batches(self._source_sizes(), batch_size)
        if limit_batches is not None:
            self.num_batches = min(self.num_batches, limit_batches)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `start` on."""
        plan = self._plan(epoch)[start:]
        if isinstance(self.split, TensorSplit) and self._num_workers == 0:
            # One gather per batch; a DataLoader would add nothing but its own overhead.
            for _, indices in plan:
                yield self._pin(self.split.batch(indices))
            return
        yield from DataLoader(
            _SeededBatches(self.split),
            sampler=plan,
            batch_size=None,
            num_workers=self._num_workers,
            pin_memory=self._pin_memory,
            worker_init_fn=_ignore_interrupts,
            # Its own generator: making an iterator must not move the global one, or resuming would show.
            generator=torch.Generator(),
        )

    def in_another_order(self) -> "Loader":
        """Return a loader of the same batches' sizes whose orders and augmentations have nothing to do with these."""
        other = copy.copy(self)
        other._seed = mix(self._seed, 0, 0, 1)
        return other

    def smallest_batch(self) -> Batch:
        """Return a batch of the smallest size that training will meet, in the order of the data set."""
        if self._sampling is None:
            last = self.num_samples - (self.num_batches - 1) * self.batch_size
            size = min(self.batch_size, max(last, 1))
            return _SeededBatches(self.split)[(self._seed, list(range(size)))]
        batches = self._sampling.plan(self.sources, self.batch_size, self._seed, 0)
        # Batches of one source come in another order in each epoch, so a limit may spare none of them.
        size = min(len(batch) for batch in batches[: None if self._sampling.single else self.num_batches])
        turns = zip_longest(*(source[:size].tolist() for source in self.sources.values()))
        everyone = [index for turn in turns for index in turn if index is not None]
        return _SeededBatches(self.split)[(self._seed, everyone[:size])]

    def draws_per_epoch(self, labelled: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
        """Return {task: (samples that carry its label, how often an epoch draws one)}; see the function of that name.

        An epoch is the first one; others differ where `limit_batches` cuts them off.
        """
        return draws_per_epoch([torch.as_tensor(indices) for _, indices in self._plan(0)], labelled)

    def _source_sizes(self) -> list[int]:
        if not self.sources:
            raise ConfigError("dataset.sampling is for data sets whose samples come from several sources")
        for name, source in self.sources.items():
            if not len(source):
                raise DataError(f"dataset: source {name} has no samples in the split")
        return [len(source) for source in self.sources.values()]

    def first(self, count: int) -> Batch:
        """Return the first `count` samples of the data set, or all if there are fewer."""
        return _SeededBatches(self.split)[(self._seed, list(range(min(count, self.num_samples))))]

    def _plan(self, epoch: int) -> list[tuple[int, list[int] | Tensor]]:
        """Return (seed, indices) of every batch of the epoch."""
        batches: Sequence[Tensor]
        if self._sampling is not None:
            batches = self._sampling.plan(self.sources, self.batch_size, self._seed, epoch)[: self.num_batches]
            return [(mix(self._seed, epoch, number), indices) for number, indices in enumerate(batches)]
        generator = torch.Generator().manual_seed(mix(self._seed, epoch))
        order = (
            torch.randperm(self.num_samples, generator=generator) if self._shuffle else torch.arange(self.num_samples)
        )
        batches = order.split(self.batch_size)[: self.num_batches]
        return [(mix(self._seed, epoch, number), indices) for number, indices in enumerate(batches)]

    def _pin(self, batch: Batch) -> Batch:
        if not self._pin_memory:
            return batch
        inputs, targets = batch
        return inputs.pin_memory(), {task: target.pin_memory() for task, target in targets.items()}


class _SeededBatches(Dataset[Any]):
    """Fetches and stacks a whole batch under a seed of its own, and leaves the generators as they were."""

    def __init__(self, split: "Dataset[Any]") -> None:
        self._split = split

    def __getitem__(self, item: tuple[int, Sequence[int] | Tensor]) -> Batch:
        seed, indices = item
        if isinstance(self._split, TensorSplit):
            return self._split.batch(indices)
        python_state, numpy_state = random.getstate(), numpy.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds GPUs as well
                random.seed(seed)
                numpy.random.seed(seed % 2**32)
                batch: Batch = default_collate([self._split[int(index)] for index in indices])
                return batch
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches the whole process group; the training process alone decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
