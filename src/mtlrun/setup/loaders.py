"""One loader per split, and tasks fitted to the training targets."""

import logging
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mtlrun.config.settings import Runtime, Settings
from mtlrun.datasets import SPLITS, Loader, MultiTaskDataset, TensorSplit
from mtlrun.datasets.base import Split, as_split, lies_on_gpu
from mtlrun.datasets.batches.fetching import check_finite
from mtlrun.datasets.batches.parts import Labeled
from mtlrun.datasets.batches.sampling import draw_with_replacement
from mtlrun.errors import DataError
from mtlrun.setup.compatibility import check_categories, check_targets
from mtlrun.setup.length import choose_batch_size
from mtlrun.setup.placing import place_splits
from mtlrun.setup.target_check import check_of
from mtlrun.tasks import Task

logger = logging.getLogger(__name__)

_CHUNK = 256  # samples of which the labels are looked at together


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
    loaders: dict[str, Loader] = {}
    read = {name: as_split(dataset.split(name)) for name in SPLITS}
    for name, split in place_splits(dataset, read, runtime, device).items():
        if len(split) == 0:
            raise DataError(f"dataset: the {name} split is empty")
        check_targets(split, name, tasks)
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
            labeled=find_labeled(split, name, tasks),
            check=check_of(split, name, tasks),
        )
        if isinstance(split, TensorSplit):
            check_finite(split.inputs, range(len(split)), name)
            if split.holds_inputs:
                check_categories(dataset.columns, split.inputs, name)
    if look_ahead:
        loaders["meta"] = loaders["train"].with_independent_seed()
    return loaders


def find_labeled(split: Split, name: str, tasks: Mapping[str, Task]) -> Labeled:
    """Return for each task which samples of a split are labeled, None for all.

    Nothing for a split that does not hold its targets, unless it lies on a GPU: it is gone through then, and its labels
    are checked, so that nothing has to be read from there later. Samples of weight 0 are treated as unlabeled.

    Args:
        split: the samples.
        name: of the split.
        tasks: of the run.

    Raises:
        DataError: a label on a GPU is not valid.
    """
    if split.targets is None and not lies_on_gpu(split):
        return {}
    found: dict[str, Tensor | None] = {}
    for task_name, task in tasks.items():
        mask = _find_labels(split, name, task_name, task)
        weights = split.sample_weights
        if isinstance(weights, Mapping):
            weights = weights.get(task_name)
        if weights is not None:
            mask = mask & (weights > 0)
        found[task_name] = None if mask.all() else mask
    return found


def _find_labels(split: Split, split_name: str, name: str, task: Task) -> Tensor:
    """Return a mask of the samples with a task's label, on the CPU."""
    if split.targets is not None:
        return task.labeled(split.targets[name])
    samples = Loader(split, _CHUNK, shuffle=False)
    try:
        return torch.cat([task.labeled(target).cpu() for target in _load_targets(samples, name, task)])
    except ValueError as error:
        raise DataError(f"dataset: {split_name} split, task {name}: {error}") from error


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
