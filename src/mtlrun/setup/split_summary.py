"""Summary of each split that a run used, to compare runs by: its size, its number of labels, its fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlrun.datasets.base import Split, TensorSplit
from mtlrun.records.record import SplitSummary
from mtlrun.records.stamps import Stamp
from mtlrun.tasks import Task


def summarize(split: Split, tasks: Mapping[str, Task], stamps: Mapping[str, Stamp] | None = None) -> SplitSummary:
    """Return the summary of a split without loading samples.

    Args:
        split: of the dataset.
        tasks: those of the run.
        stamps: of the files that the samples come from. They stand for the inputs, in the fingerprint, where these are
            not in memory.
    """
    labeled: dict[str, int] = {}
    if split.targets is not None:
        labeled = {name: int(task.labeled(split.targets[name]).sum()) for name, task in tasks.items()}
    return SplitSummary(len(split), labeled, _fingerprint(split, stamps or {}))


def _fingerprint(split: Split, stamps: Mapping[str, Stamp]) -> str | None:
    if split.sample_ids is None and split.targets is None and not stamps:
        return None
    digest = hashlib.blake2b(digest_size=16)
    if split.sample_ids is not None:
        digest.update(json.dumps(list(split.sample_ids)).encode())
    if split.targets is not None:
        for name in sorted(split.targets):
            digest.update(name.encode())
            _add(digest, split.targets[name])
    if split.sample_weights is not None:
        _add(digest, split.sample_weights)
    if isinstance(split, TensorSplit) and split.holds_inputs:
        _add(digest, split.inputs)
    else:
        # Paths and times are left out: a copy of the data elsewhere is the same data.
        digest.update(json.dumps([[stamp.names, stamp.content] for stamp in stamps.values()]).encode())
    return digest.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
