"""Loader of a split's batches, in an order that depends only on the seed and the epoch, from any position on."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtlrun.datasets.base import as_split, lies_on_gpu
from mtlrun.datasets.batches.fetching import Failure, Fetcher, Loaded
from mtlrun.datasets.batches.parts import Labeled
from mtlrun.datasets.batches.sampling import Sampling, draws_per_epoch
from mtlrun.datasets.batches.seeds import derive_seed
from mtlrun.datasets.batches.workers import deaths, prepare_worker, starting_workers
from mtlrun.errors import ConfigError, DataError, WorkerDiedError

#: (seed, indices of the samples) of one batch.
Item = tuple[int, Tensor]
_EPOCHS_SEARCHED = 5  # for the smallest number of samples that a batch has of a source


class Loader:
    """An iterable over the batches of one split.

    The order and all random augmentation follow from (seed, epoch, batch number), so a run that is continued in the
    middle of an epoch, or with another number of workers, sees exactly the same batches.

    Args:
        split: a `Split`, or any map-style dataset of `(input, {task: target})`.
        batch_size: samples per batch; the last batch of an epoch may be smaller.
        shuffle: whether the order of the samples changes in each epoch.
        seed: the run's seed.
        limit_batches: only the first N batches of each epoch; None for all.
        num_workers: processes that load; 0 loads in this one, as is done for a split on a GPU, whatever this is. They
            are started once and live as long as the loader.
        pin_memory: whether workers' batches are put into page-locked memory, for a faster copy to a GPU.
        sampling: how batches are drawn from the split's sources; None to shuffle all samples together.
        per_source: whether each batch has the form {source: its samples}.
        rows: the sample that stands at each place of the split, int64 [num_samples], such as samples that were drawn
            with replacement; None for its own.
        labeled: {task: which samples of the split are labeled}, None for all, for the tasks for which that is known.
        check: called with each batch and the indices of its samples in the split, {source: indices}, one entry if there
            are no sources; raises DataError if something in it is not valid.
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
        per_source: bool = False,
        rows: Tensor | None = None,
        labeled: Labeled | None = None,
        check: Callable[[Loaded, Mapping[str, Tensor]], None] | None = None,
    ) -> None:
        self.split = as_split(split)
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._pin_memory = pin_memory
        self.num_samples = len(self.split)
        self._sampling = sampling
        self._rows = rows
        self.sources: Mapping[str, Tensor] = self.split.sources or {}
        if (sampling is not None or per_source) and not self.sources:
            raise ConfigError("dataset.sampling is for datasets whose samples come from several sources")
        self._num_workers = 0 if lies_on_gpu(self.split) else num_workers
        self._fetcher = Fetcher(self.split, self.sources if per_source else None, self._num_workers, labeled)
        self._check = check
        self._worker_plan = _Plan()
        self._workers: DataLoader[Any] | None = None
        self.num_batches = -(-self.num_samples // batch_size)
        if sampling is not None:
            self.num_batches = sampling.num_batches(self._source_sizes(), batch_size)
        #: The number of batches in an epoch without `limit_batches`.
        self.unlimited_batches = self.num_batches
        self._limited = limit_batches is not None and limit_batches < self.num_batches
        if limit_batches is not None:
            self.num_batches = min(self.num_batches, limit_batches)

    @property
    def per_source(self) -> bool:
        """True if batches have the form {source: its samples}."""
        return self._fetcher.per_source

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Loaded]:
        """Yield the batches of `epoch` from number `start` on.

        Raises:
            DataError: a sample cannot be read.
            WorkerDiedError: a process that loads has died.
        """
        plan = self._plan(epoch)[start:]
        for (_, indices), batch in zip(plan, self._fetched(plan), strict=True):
            if self._check is not None:
                self._check(batch, self._fetcher.by_source(indices))
            yield batch

    def _fetched(self, plan: list[Item]) -> Iterator[Loaded]:
        """Yield the batches that are planned."""
        if self._num_workers == 0:
            seeds, chosen = zip(*plan, strict=True) if plan else ((), ())
            for seed, parts in zip(seeds, self._fetcher.parts(chosen), strict=True):
                yield self._fetcher.make(seed, parts)
            return
        self._worker_plan.items = plan
        if self._workers is None:
            self._workers = DataLoader(
                self._fetcher,
                sampler=self._worker_plan,
                batch_size=None,
                num_workers=self._num_workers,
                pin_memory=self._pin_memory,
                worker_init_fn=prepare_worker,
                persistent_workers=True,
                # A separate generator: making an iterator must not advance the global one, or resuming would change it.
                generator=torch.Generator(),
            )
        with starting_workers():
            batches = iter(self._workers)
        while (batch := self._next(batches)) is not None:
            yield batch

    def close(self) -> None:
        """End the processes that load, if there are any; to ask for a batch starts them again.

        Python, when it ends, sends its processes a signal, which these ignore, and waits for them: without this call it
        may wait for ever.
        """
        workers, self._workers = self._workers, None
        if workers is not None and (started := workers._iterator) is not None:
            started._shutdown_workers()  # type: ignore[attr-defined]

    def describe_rows(self) -> str:
        """Return in words which samples were drawn with replacement; "" if none were."""
        if self._rows is None:
            return ""
        different = len(self._rows.unique())
        return f"trained on {len(self._rows):,} rows that were drawn with replacement, {different:,} of them different"

    def target_batches(self) -> Iterator[Mapping[str, Tensor]]:
        """Yield {task: targets} of the first epoch's batches, on the CPU, for each source on its own with `per_source`.

        Inputs are read only if the split does not hold its targets in memory.
        """
        held = self.split.targets
        if held is not None:
            for _, indices in self._plan(0):
                yield {task: target[indices] for task, target in held.items()}
            return
        for batch in self.batches():
            for _, targets, *_ in batch.values() if isinstance(batch, dict) else [batch]:
                yield {task: target.cpu() for task, target in targets.items()}

    def positions(self) -> Iterator[list[Tensor]]:
        """Yield which samples are in each batch of the first epoch: their indices, for each source with `per_source`.

        In the order of what `batches` yields, without loading anything.
        """
        for _, indices in self._plan(0):
            yield list(self._fetcher.by_source(indices).values())

    def _next(self, batches: Iterator[Loaded | Failure]) -> Loaded | None:
        """Return the next batch of the workers, or None after the last one."""
        try:
            with deaths.raised():
                batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # PyTorch's if a worker is killed, or a broken pipe's
            self._workers = None
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            samples = self._fetcher.samples_read_by(reason)
            raise WorkerDiedError(
                f"dataset: a process that loads samples died while it held {samples} of the split "
                f"({reason}); runtime.num_workers=0 loads in the main process, fewer workers take less memory"
            ) from error
        if isinstance(batch, Failure):
            raise DataError(batch.message)
        return batch

    def with_independent_seed(self) -> "Loader":
        """Return a loader of the same split whose orders and augmentations are independent of this one's."""
        other = copy.copy(self)
        other._seed = derive_seed(self._seed, 0, 0, 1)
        other._worker_plan, other._workers = _Plan(), None
        return other

    def used(self) -> Tensor | None:
        """Return the indices of the samples that the first epoch uses; None if `limit_batches` leaves none out."""
        return torch.cat([indices for _, indices in self._plan(0)]).unique() if self._limited else None

    def smallest_batch(self) -> Loaded:
        """Return a batch of the smallest size that training will meet, in the order of the dataset.

        With `per_source`, each source has as few samples as in any batch of the first epochs, since their number in a
        batch may be random.
        """
        if self.per_source:
            batches = [indices for epoch in range(_EPOCHS_SEARCHED) for _, indices in self._plan(epoch)]
            return self._of_first(
                torch.cat([source[: self._smallest(batches, source)] for source in self.sources.values()])
            )
        if self._sampling is None:
            last = self.num_samples - (self.num_batches - 1) * self.batch_size
            return self._of_first(range(min(self.batch_size, max(last, 1))))
        batches = self._sampling.plan(self.sources, self.batch_size, self._seed, 0)
        # The order of single-source batches changes in each epoch, so with limit_batches any of them may come.
        batches = batches[: None if self._sampling.single else self.num_batches]
        size = min(len(batch) for batch in batches)
        turns = zip_longest(*(source[:size].tolist() for source in self.sources.values()))
        return self._of_first([index for turn in turns for index in turn if index is not None][:size])

    def first_batch(self) -> Loaded:
        """Return the first batch of the first epoch, fetched by this process."""
        return self._fetcher.fetch(*self._plan(0)[0])

    def first(self, count: int) -> Loaded:
        """Return the first `count` samples of the dataset, or of each source with `per_source`; all if fewer."""
        if self.per_source:
            return self._of_first(torch.cat([source[:count] for source in self.sources.values()]))
        return self._of_first(range(min(count, self.num_samples)))

    def _smallest(self, batches: Sequence[Tensor], source: Tensor) -> int:
        """Return the smallest number of samples that a batch has of a source, among the batches that have any."""
        belongs = torch.zeros(self.num_samples, dtype=torch.bool)
        belongs[source] = True
        counts = [int(belongs[indices].sum()) for indices in batches]
        return min((count for count in counts if count), default=0)

    def _of_first(self, indices: Sequence[int] | Tensor) -> Loaded:
        batch = self._fetcher.fetch(self._seed, indices)
        if self._check is not None:
            self._check(batch, self._fetcher.by_source(indices))
        return batch

    def draws_per_epoch(self, labeled: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
        """Return {task: (samples that carry its label, how many of these the first epoch draws)}.

        Other epochs differ if `limit_batches` cuts them off.

        Args:
            labeled: for each task a mask over the split.
        """
        return draws_per_epoch([torch.as_tensor(indices) for _, indices in self._plan(0)], labeled)

    def _source_sizes(self) -> list[int]:
        for name, source in self.sources.items():
            if not len(source):
                raise DataError(f"dataset: source {name} has no samples in the split")
        return [len(source) for source in self.sources.values()]

    def _plan(self, epoch: int) -> list[Item]:
        """Return (seed, indices) of every batch of the epoch."""
        batches: Sequence[Tensor]
        if self._sampling is not None:
            batches = self._sampling.plan(self.sources, self.batch_size, self._seed, epoch)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, epoch))
            everything = torch.arange(self.num_samples)
            order = torch.randperm(self.num_samples, generator=generator) if self._shuffle else everything
            batches = order.split(self.batch_size)
        draws_nothing = self._fetcher.draws_nothing
        return [
            (
                0 if draws_nothing else derive_seed(self._seed, epoch, number),
                indices if self._rows is None else self._rows[indices],
            )
            for number, indices in enumerate(batches[: self.num_batches])
        ]


class _Plan(Sampler[Item]):
    """A sampler whose items are replaced before each epoch, so that worker processes need not be restarted."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
