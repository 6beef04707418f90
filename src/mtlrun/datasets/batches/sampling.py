"""Sampling of training batches from several sources: disjoint subsets of a split, of unequal sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from mtlrun.config.bounds import LARGEST, Bounds, Positive, check_fields
from mtlrun.datasets.batches.seeds import derive_seed
from mtlrun.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """A rule for how many samples of each source an epoch has, and how they are grouped into batches.

    Each source is passed through repeatedly, in a new random order each time: no sample is repeated before all samples
    of its source were drawn. A pass that is unfinished at the end of an epoch continues in the next one, so that no
    sample is skipped. The sequence depends only on the seed and the epoch.

    Args:
        strategy: the number of samples of each source.
            `proportional`: all of them, once per epoch.
            `round_robin`: the same number of each; an epoch is one pass of the longest source, and shorter ones repeat.
            `min`: the same number of each; an epoch is one pass of the shortest source.
            `temperature`: in proportion to size^(1/temperature); an epoch has as many samples as the split.
            `cycle`: as `round_robin`, in batches of one source each, which take turns in a fixed order.
        batches: `mixed`: a batch holds samples of all sources. `single`: each batch is of one source; with round_robin
            and min the sources take turns, in an order that changes, and else the source is drawn. Null for mixed, or
            single with `cycle`, which has no other form.
        temperature: with strategy=temperature; 1 is proportional to the sizes, the higher the more equal.
        epoch_length: batches of an epoch, in place of the number that follows from the strategy; the proportions of the
            sources stay the same.
        batch_norm: `shared`: all samples of a batch of one shape go through the model together, and BatchNorm has one
            set of running statistics; `per_source`: each source goes through the model separately and is normalized by
            its own statistics, in training and in evaluation. Scales and shifts are shared either way.
    """

    strategy: Literal["proportional", "round_robin", "temperature", "cycle", "min"] = "proportional"
    batches: Literal["mixed", "single"] | None = None
    temperature: Positive = 2.0
    epoch_length: Annotated[int, Bounds(1, LARGEST, limit=True, null="the strategy's own")] | None = None
    batch_norm: Literal["shared", "per_source"] = "shared"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.strategy == "cycle" and self.batches == "mixed":
            raise ValueError("batches must be single, or null, with strategy=cycle, found mixed")

    @property
    def single(self) -> bool:
        """True if each batch is of one source."""
        return self.batches == "single" or self.strategy == "cycle"

    def counts(self, sizes: Sequence[int], batch_size: int) -> list[int]:
        """Return how many samples of each source an epoch has, the same in every epoch.

        Args:
            sizes: of the sources.
            batch_size: samples of a batch.

        Raises:
            ConfigError: an epoch is too short to contain all sources.
        """
        if self.epoch_length is None:
            if self.strategy == "temperature":
                return _apportion(sum(sizes), self._proportions(sizes))
            if self.strategy == "proportional":
                return list(sizes)
            return [min(sizes) if self.strategy == "min" else max(sizes)] * len(sizes)
        units = self.epoch_length if self.single else self.epoch_length * batch_size
        if units < len(sizes):
            what = "batches of one source each" if self.single else f"batches of {batch_size} samples"
            raise ConfigError(
                f"dataset.sampling.epoch_length={self.epoch_length}: so many {what} have no place for each of the "
                f"{len(sizes)} sources"
            )
        counts = _apportion(units, self._proportions(sizes))
        return [count * batch_size for count in counts] if self.single else counts

    def num_batches(self, sizes: Sequence[int], batch_size: int) -> int:
        """Return how many batches an epoch has."""
        counts = self.counts(sizes, batch_size)
        return sum(-(-count // batch_size) for count in (counts if self.single else [sum(counts)]))

    def plan(self, sources: Mapping[str, Tensor], batch_size: int, seed: int, epoch: int) -> list[Tensor]:
        """Return the batches of an epoch, each as indices into the split.

        Args:
            sources: {name: indices of its samples}; none is empty.
            batch_size: samples of a batch; the last one of an epoch, or of a source, may be smaller.
            seed: of the run.
            epoch: counted from 0.
        """
        counts = self.counts([len(source) for source in sources.values()], batch_size)
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
        parts = [
            _draw(source, epoch * count, count, seed, number)
            for number, (source, count) in enumerate(zip(sources.values(), counts, strict=True))
        ]
        if self.single:
            batches = [iter(part.split(batch_size)) for part in parts]
            turns = self._turns([-(-count // batch_size) for count in counts], generator)
            return [next(batches[number]) for number in turns.tolist()]
        together = torch.empty(sum(counts), dtype=torch.int64)
        together[self._turns(counts, generator).argsort(stable=True)] = torch.cat(parts)
        # Shuffle within each batch, so that its micro-batches do not separate the sources.
        return [batch[torch.randperm(len(batch), generator=generator)] for batch in together.split(batch_size)]

    def _proportions(self, sizes: Sequence[int]) -> list[float]:
        if self.strategy == "proportional":
            return [float(size) for size in sizes]
        # Of the size relative to the largest, so that a low temperature does not overflow.
        largest, power = max(sizes), 1 / self.temperature if self.strategy == "temperature" else 0.0
        return [(size / largest) ** power for size in sizes]

    def _turns(self, counts: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return the source of each sample, or of each batch, as its number."""
        numbers = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        if self.strategy in ("proportional", "temperature"):
            return numbers[torch.randperm(len(numbers), generator=generator)]
        turns = torch.cat([torch.arange(count) for count in counts]).double()
        if self.single and self.strategy != "cycle":
            turns += torch.rand(len(turns), generator=generator, dtype=torch.float64)
        return numbers[turns.argsort(stable=True)]


def draw_with_replacement(num_samples: int, sources: Mapping[str, Tensor], seed: int) -> Tensor:
    """Return as many samples as there are, drawn with replacement, int64 [num_samples]; for each place its sample.

    Of each source as many are drawn as it has, so that a place of a source holds a sample of it.

    Args:
        num_samples: of the split.
        sources: {name: indices of its samples}; empty without sources.
        seed: the same one draws the same samples.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, 0, 0, 2))
    drawn = torch.empty(num_samples, dtype=torch.int64)
    for indices in sources.values() if sources else [torch.arange(num_samples)]:
        drawn[indices] = indices[torch.randint(len(indices), (len(indices),), generator=generator)]
    return drawn


def draws_per_epoch(batches: Sequence[Tensor], labeled: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return {task: (samples that carry its label, how many of these an epoch's batches hold)}.

    Args:
        batches: of one epoch, as indices into the split.
        labeled: for each task a mask over the split.
    """
    drawn = torch.cat(list(batches))
    return {task: (int(mask.sum()), int(mask[drawn].sum())) for task, mask in labeled.items()}


def _apportion(total: int, proportions: Sequence[float]) -> list[int]:
    """Return whole numbers >= 1 that add up to `total` and nearly have the given proportions: by largest remainders."""
    rest = total - len(proportions)
    exact = [max(total * value / sum(proportions) - 1, 0.0) for value in proportions]
    scale = rest / sum(exact) if sum(exact) else 0.0
    exact = [scale * value for value in exact]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(proportions)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: rest - sum(counts)]:
        counts[index] += 1
    return [1 + count for count in counts]


def _draw(source: Tensor, start: int, count: int, seed: int, number: int) -> Tensor:
    """Return `count` samples from position `start` on in the sequence of all passes through a source."""
    size = len(source)
    passes = range(start // size, (start + count - 1) // size + 1)
    orders = [
        torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(seed, number, turn, 2)))
        for turn in passes
    ]
    skipped = start - passes.start * size
    return source[torch.cat(orders)[skipped : skipped + count]]
