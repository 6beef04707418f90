"""One loader per split, and tasks fitted to the training targets."""

import logging
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mtlrun.config.settings import Runtime, Settings
from mtlrun.datasets import SPLITS, Loader, MultiTaskDataset, TensorSplit
from mtlrun.datasets.base import as_split
from mtlrun.datasets.batches.fetching import check_finite
from mtlrun.datasets.batches.sampling import draw_with_replacement
from mtlrun.errors import ConfigError, DataError
from mtlrun.setup.compatibility import check_categories, check_targets
from mtlrun.setup.length import choose_batch_size
from mtlrun.tasks import Task

logger = logging.getLogger(__name__)


def make_loaders(
    dataset: MultiTaskDataset,
    tasks: Mapping[str, Task],
    settings: Settings,
    runtime: Runtime,
    device: torch.device,
    seed: int,
    *,
    look_ahead: bool,
    independent: bool,
) -> dict[str, Loader]:
    """Return a loader for each split, and with `look_ahead` one more of the training split, with an independent seed.

    If tasks are `independent`, each source goes through the model separately, so that no network sees another task's
    samples.
    """
    if dataset.cache == "device" and device.type == "cuda" and runtime.num_workers:
        raise ConfigError(
            f"runtime.num_workers={runtime.num_workers}: with dataset.cache=device batches are made on the GPU, which "
            "worker processes cannot do; use runtime.num_workers=0"
        )
    loaders: dict[str, Loader] = {}
    for name in SPLITS:
        split = as_split(dataset.split(name))
        if dataset.cache == "device":
            if not isinstance(split, TensorSplit):
                raise ConfigError(
                    "dataset.cache=device needs splits in memory, of the class TensorSplit; use another one"
                )
            split = split.to(device)
        if len(split) == 0:
            raise DataError(f"dataset: the {name} split is empty")
        rows = None
        if name == "train" and settings.bootstrap_rows:
            rows = draw_with_replacement(len(split), split.sources or {}, seed)
        loaders[name] = Loader(
            split,
            settings.batch_size or choose_batch_size(len(split)) if name == "train" else settings.eval_batch_size,
            shuffle=name == "train",
            seed=seed,
            limit_batches=settings.limit_batches,
            num_workers=runtime.num_workers,
            pin_memory=device.type == "cuda",
            sampling=dataset.sampling if name == "train" else None,
            per_source=dataset.inputs_differ or has_source_statistics(dataset) or (independent and bool(split.sources)),
            rows=rows,
        )
        check_targets(split, name, tasks)
        if isinstance(split, TensorSplit):
            check_finite(split.inputs, range(len(split)), name)
            if split.holds_inputs:
                check_categories(dataset.columns, split.inputs, name)
    if look_ahead:
        loaders["meta"] = loaders["train"].with_independent_seed()
    return loaders


def has_source_statistics(dataset: MultiTaskDataset) -> bool:
    """Return True if BatchNorm keeps running statistics for each source."""
    return dataset.sampling is not None and dataset.sampling.batch_norm == "per_source"


def fit_tasks(tasks: Mapping[str, Task], loader: Loader, num_workers: int) -> None:
    """Fit the tasks that need it to the targets of the whole training split, without the samples of weight 0."""
    split = loader.split
    # A separate loader, since neither the run's seed nor trainer.limit_batches may change what a task learns here.
    samples = Loader(split, loader.batch_size, shuffle=False, num_workers=num_workers)
    for name, task in tasks.items():
        if not task.needs_fit:
            continue
        loaded = _load_targets(samples, name, task) if split.targets is None else [split.targets[name]]
        weights = (
            split.sample_weights if isinstance(split.sample_weights, Tensor | None) else split.sample_weights.get(name)
        )
        try:
            task.fit(loaded if weights is None else _weighted(loaded, weights))
        except ValueError as error:
            raise DataError(f"dataset: train split, task {name}: {error}") from error
        if task.describe_learned():
            logger.info("%s is %s", name, task.describe_learned())


def _weighted(targets: Iterable[Tensor], weights: Tensor) -> Iterator[Tensor]:
    """Yield the targets of the samples whose weight is not 0.

    Args:
        targets: of all samples, in chunks.
        weights: [num_samples].
    """
    start = 0
    for target in targets:
        yield target[weights[start : start + len(target)] > 0]
        start += len(target)


def _load_targets(loader: Loader, name: str, task: Task) -> Iterator[Tensor]:
    """Load all samples of a split that does not hold its targets in memory; yield the targets, checked."""
    for number, batch in enumerate(loader.batches()):
        assert not isinstance(batch, dict)
        try:
            task.check_targets(batch[1][name])
        except ValueError as error:
            raise ValueError(f"in the samples from number {number * loader.batch_size} on: {error}") from error
        yield batch[1][name]


def log_sampling(loader: Loader, tasks: Mapping[str, Task], total_steps: int) -> None:
    """Log how many labeled samples each task has and how many an epoch draws, if there are several sources.

    The same per source if targets are not held in memory.
    """
    if not loader.sources:
        return
    targets = loader.split.targets
    if targets is not None:
        masks = {f"task {name}": task.labeled(targets[name]).cpu() for name, task in tasks.items()}
    else:
        samples = torch.arange(loader.num_samples)
        masks = {f"source {name}": torch.isin(samples, source) for name, source in loader.sources.items()}
    for name, (count, drawn) in loader.draws_per_epoch(masks).items():
        passes = drawn / count * total_steps / loader.num_batches
        logger.info("%s: %d samples, %d drawn per epoch, %.3g passes in all", name, count, drawn, passes)
