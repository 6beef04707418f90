"""Where the samples of a run lie: in memory, or on the GPU, where batches are then made."""

import logging
from collections.abc import Mapping

import torch

from mtlrun.config.settings import Runtime
from mtlrun.datasets.base import BatchSplit, Cache, MultiTaskDataset, Split, SplitName, lies_on_gpu
from mtlrun.errors import ConfigError

logger = logging.getLogger(__name__)

# How much of a GPU's free memory the samples may take unasked; the model and its activations need the rest.
_FRACTION = 1 / 4


def place_splits(
    dataset: MultiTaskDataset, splits: Mapping[SplitName, Split], runtime: Runtime, device: torch.device
) -> Mapping[SplitName, Split]:
    """Return the splits where `dataset.cache` wants them: on `device`, or as they are.

    Raises:
        ConfigError: they cannot be there.
    """
    movable = {id(split): split for split in splits.values() if isinstance(split, BatchSplit)}
    all_movable = all(id(split) in movable for split in splits.values())
    if dataset.cache == "device":
        _check_movable(all_movable, runtime, device)
    elif not (
        dataset.cache == "auto" and device.type == "cuda" and all_movable and _are_to_move(movable, runtime, device)
    ):
        return splits
    moved = {key: split.to(device) for key, split in movable.items()}  # two names may stand for one split
    return {name: moved[id(split)] for name, split in splits.items()}


def _check_movable(all_movable: bool, runtime: Runtime, device: torch.device) -> None:
    """Raise ConfigError if the splits cannot lie on a device, or workers could not make batches there."""
    if not all_movable:
        raise ConfigError("dataset.cache=device needs splits in memory, such as a TensorSplit; use another one")
    if runtime.num_workers and device.type != "cpu":
        raise ConfigError(
            f"runtime.num_workers={runtime.num_workers}: with dataset.cache=device batches are made on the GPU, which "
            "worker processes cannot do; use runtime.num_workers=0"
        )


def _are_to_move(splits: Mapping[int, BatchSplit], runtime: Runtime, device: torch.device) -> bool:
    """Return True if the splits fit into the part of a GPU's free memory that they may take, which is logged.

    False as well if batches that are made there would not be the same.
    """
    if not all(split.same_everywhere for split in splits.values()):
        return False
    needed, (free, _) = sum(split.nbytes for split in splits.values()), torch.cuda.mem_get_info(device)
    fit = needed <= _FRACTION * free
    sizes = f"{needed / 2**20:,.0f} MiB of {free / 2**20:,.0f} that are free"
    if fit:
        workers = "; runtime.num_workers starts none for them" if runtime.num_workers else ""
        logger.info("samples lie on the GPU, where batches are made: %s (dataset.cache=auto)%s", sizes, workers)
    else:
        logger.info(
            "samples stay in memory, since on the GPU they would take more than a quarter of what is free: %s; "
            "dataset.cache=device puts them there",
            sizes,
        )
    return fit


def describe_place(cache: Cache, split: Split) -> Cache:
    """Return where the samples of a split lie, given `dataset.cache`: `device`, `memory` or `none`."""
    if lies_on_gpu(split):
        return "device"
    return "none" if cache == "none" else "memory"
