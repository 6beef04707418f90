"""What a run saw of its data, in a form that can be compared: sizes, labels that are there, a fingerprint per split."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlrun.records.record import SplitSummary
from mtlrun.tasks import Task

# Inputs beyond this many bytes are left out of the fingerprint, so that a start does not wait for them.
_LARGE = 2**26


def summarize(split: Any, tasks: Mapping[str, Task]) -> SplitSummary:
    """Look at a split without loading samples.

    Args:
        split: with `targets`, {task: tensor}, and `sample_ids`, what each sample is called in the source, if it can.
        tasks: that are trained.
    """
    targets = getattr(split, "targets", None)
    labeled: dict[str, int] = {}
    if isinstance(targets, Mapping):
        labeled = {name: int(task.labeled(targets[name]).sum()) for name, task in tasks.items()}
    return SplitSummary(len(split), labeled, _fingerprint(split, targets))


def _fingerprint(split: Any, targets: Any) -> str | None:
    digest = hashlib.blake2b(digest_size=16)
    known = False
    sample_ids = getattr(split, "sample_ids", None)
    if sample_ids is not None:
        known = True
        digest.update(json.dumps(list(sample_ids)).encode())
    if isinstance(targets, Mapping):
        known = True
        for name in sorted(targets):
            digest.update(name.encode())
            _add(digest, targets[name])
    weights = getattr(split, "weights", None)
    if weights is not None:
        _add(digest, weights)
    inputs = getattr(split, "inputs", None)
    if isinstance(inputs, Tensor) and inputs.nbytes <= _LARGE:
        _add(digest, inputs)
    return digest.hexdigest() if known else None


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
