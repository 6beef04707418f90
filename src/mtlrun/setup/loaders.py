"""From a dataset to what a run is fed with: loaders, tasks that know their data, and what is said of it."""

import logging
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mtlrun.config.settings import Runtime, Settings
from mtlrun.datasets import SPLITS, Loader, MultiTaskDataset, TensorSplit
from mtlrun.datasets.batches.fetching import check_finite
from mtlrun.errors import ConfigError, DataError
from mtlrun.setup.compatibility import check_targets
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
    """Return a loader for each split, and with `look_ahead` a second one of the training split, in another order.

    Where tasks are `independent`, sources are kept apart, so that no network sees another task's samples.
    """
    if dataset.cache == "device" and device.type == "cuda" and runtime.num_workers:
        raise ConfigError(
            f"runtime.num_workers={runtime.num_workers}: with dataset.cache=device batches are made on the GPU, where "
            "other processes have no part; use runtime.num_workers=0"
        )
    loaders: dict[str, Loader] = {}
    for name in SPLITS:
        split = dataset.split(name)
        if dataset.cache == "device":
            if not isinstance(split, TensorSplit):
                raise ConfigError(
                    "dataset.cache=device needs splits in memory, of the class TensorSplit; use another one"
                )
            split = split.to(device)
        has_sources = bool(getattr(split, "sources", None))
        if len(split) == 0:  # type: ignore[arg-type]
            raise DataError(f"dataset: the {name} split is empty")
        loaders[name] = Loader(
            split,
            settings.batch_size if name == "train" else settings.eval_batch_size,
            shuffle=name == "train",
            seed=seed,
            limit_batches=settings.limit_batches,
            num_workers=runtime.num_workers,
            pin_memory=device.type == "cuda",
            sampling=dataset.sampling if name == "train" else None,
            apart=dataset.inputs_differ or own_statistics(dataset) or (independent and has_sources),
        )
        check_targets(split, name, tasks)
        if isinstance(split, TensorSplit):
            check_finite(split.inputs, range(len(split)), name)
    if look_ahead:
        loaders["meta"] = loaders["train"].in_another_order()
    return loaders


def own_statistics(dataset: MultiTaskDataset) -> bool:
    """Say whether BatchNorm is to have running statistics for each source."""
    return dataset.sampling is not None and dataset.sampling.batch_norm == "per_source"


def fit_tasks(tasks: Mapping[str, Task], loader: Loader, num_workers: int) -> None:
    """Give the tasks that ask for it the targets of the whole training split."""
    held = getattr(loader.split, "targets", None)
    # Neither the run's seed nor trainer.limit_batches changes what a task learns here.
    samples = Loader(loader.split, loader.batch_size, shuffle=False, num_workers=num_workers)
    for name, task in tasks.items():
        if task.needs_fit:
            try:
                task.fit([held[name]] if isinstance(held, Mapping) else _targets(samples, name, task))
            except ValueError as error:
                raise DataError(f"dataset: train split, task {name}: {error}") from error


def _targets(loader: Loader, name: str, task: Task) -> Iterator[Tensor]:
    """Go through a split that does not hold its targets, and check them on the way."""
    for number, batch in enumerate(loader.batches()):
        assert not isinstance(batch, dict)
        try:
            task.check_targets(batch[1][name])
        except ValueError as error:
            raise ValueError(f"in the samples from number {number * loader.batch_size} on: {error}") from error
        yield batch[1][name]


def tell_draws(loader: Loader, tasks: Mapping[str, Task], total_steps: int) -> None:
    """Say how often each task's samples come, where they come from several sources; of these if targets are hid."""
    if not loader.sources:
        return
    targets = getattr(loader.split, "targets", None)
    if isinstance(targets, Mapping):
        masks = {f"task {name}": task.labeled(targets[name]).cpu() for name, task in tasks.items()}
    else:
        samples = torch.arange(loader.num_samples)
        masks = {f"source {name}": torch.isin(samples, source) for name, source in loader.sources.items()}
    for name, (there, drawn) in loader.draws_per_epoch(masks).items():
        passes = drawn / there * total_steps / loader.num_batches
        logger.info("%s: %d samples, %d drawn per epoch, %.3g passes in all", name, there, drawn, passes)
