"""Summary of each split that a run used, to compare runs by: its size, its number of labels, its fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlrun.datasets.base import Split, TensorSplit
from mtlrun.records.record import SplitSummary
from mtlrun.tasks import Task

# Larger inputs, in bytes, are left out of the fingerprint, so that they do not delay the start.
_LARGE = 2**26


def summarize(split: Split, tasks: Mapping[str, Task]) -> SplitSummary:
    """Return the summary of a split without loading samples."""
    labeled: dict[str, int] = {}
    if split.targets is not None:
        labeled = {name: int(task.labeled(split.targets[name]).sum()) for name, task in tasks.items()}
    return SplitSummary(len(split), labeled, _fingerprint(split))


def _fingerprint(split: Split) -> str | None:
    if split.sample_ids is None and split.targets is None:
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
    if isinstance(split, TensorSplit) and split.inputs.nbytes <= _LARGE:
        _add(digest, split.inputs)
    return digest.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
