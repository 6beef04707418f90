"""Summary of each split that a run used, to compare runs by: its size, its number of labels, its fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlrun.datasets import Loader
from mtlrun.datasets.base import Split, TensorSplit
from mtlrun.datasets.tables.inputs.keys import Keys, count_repeated
from mtlrun.records.record import SplitSummary
from mtlrun.records.stamps import Stamp
from mtlrun.tasks import Task

# Of a split: so many samples that are repeated are pointed out.
_WORTH_A_LINE = 0.01


def summarize(
    loader: Loader,
    tasks: Mapping[str, Task],
    stamps: Mapping[str, Stamp] | None = None,
    train: Keys | None = None,
    val: Keys | None = None,
) -> SplitSummary:
    """Return the summary of a split without loading samples.

    Args:
        loader: of the split.
        tasks: those of the run.
        stamps: of the files that the samples come from. They stand for the inputs, in the fingerprint, where these are
            not in memory.
        train, val: keys of the samples of these splits, to look for this split's among them; None to look for none.
    """
    split, used = loader.split, loader.used()
    samples = len(split) if used is None else len(used)
    wanted = train is not None or val is not None
    keys = split.keys() if wanted and isinstance(split, TensorSplit) else None
    repeated: list[int | None] = [None, None]
    if keys is not None:
        looked_for = keys if used is None else keys[used.numpy()]
        repeated = [None if others is None else count_repeated(looked_for, others) for others in (train, val)]
    fingerprint = _fingerprint(split, stamps or {})
    return SplitSummary(samples, count_labels(split, tasks, used), fingerprint, len(split), *repeated)


def count_labels(split: Split, tasks: Mapping[str, Task], used: Tensor | None = None) -> dict[str, int]:
    """Return {task: number of samples with its label}, of all samples or of those used; empty without targets."""
    if split.targets is None:
        return {}
    labeled = {name: task.labeled(split.targets[name]) for name, task in tasks.items()}
    return {name: int((mask if used is None else mask[used]).sum()) for name, mask in labeled.items()}


def keys_of_split(split: Split) -> Keys | None:
    """Return the keys of the samples, if `TensorSplit` has any, and not all are the same, as without data."""
    keys = split.keys() if isinstance(split, TensorSplit) else None
    return None if keys is None or (keys == keys[0]).all() else keys


def describe_repeated(splits: Mapping[str, SplitSummary]) -> list[str]:
    """Return a line on the samples whose inputs are also in an earlier split; none for fewer than 1 % of a split."""
    found = {name: count for name, split in splits.items() if (count := _of_split(split, name, split.repeated))}
    parts = []
    if found:
        have = "has" if sum(splits[name].repeated or 0 for name in found) == 1 else "have"
        parts.append(f"{' and '.join(found.values())} {have} the same inputs as a training sample")
    test = splits.get("test")
    in_val = _of_split(test, "test", test.repeated_in_val) if test is not None else ""
    if test is not None and in_val:
        have = "has" if test.repeated_in_val == 1 else "have"
        parts.append(f"{in_val} {have} the same inputs as a validation sample")
    return [f"{', '.join(parts)}; metrics on them may be too good"] if parts else []


def _of_split(split: SplitSummary, name: str, repeated: int | None) -> str:
    """Return how many samples of a split are repeated, or an empty text if that changes no metric by much."""
    if not repeated or repeated < _WORTH_A_LINE * split.samples:
        return ""
    return f"{repeated:,} of {split.samples:,} {name} samples"


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
    if isinstance(split.sample_weights, Tensor):
        _add(digest, split.sample_weights)
    elif split.sample_weights is not None:
        for name, weights in sorted(split.sample_weights.items()):
            digest.update(name.encode())
            _add(digest, weights)
    if isinstance(split, TensorSplit) and split.holds_inputs:
        _add(digest, split.inputs)
    else:
        # Paths and times are left out: a copy of the data elsewhere is the same data.
        digest.update(json.dumps([[stamp.names, stamp.content] for stamp in stamps.values()]).encode())
    return digest.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
