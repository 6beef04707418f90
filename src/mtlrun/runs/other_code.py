"""Other code: whether the runs of a study were trained by the same commit."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from heapq import nlargest
from pathlib import Path
from typing import Any

from mtlrun.records.folder import RECORD
from mtlrun.records.notes import NOTED
from mtlrun.records.record import Record

logger = logging.getLogger("mtlrun")

_MOST = 50  # records that are read
_SHORT = 8  # characters of a commit
#: Packages whose classes are no code of the user's.
_INSTALLED = ("mtlrun", "torch", "torchvision")


def note_other_code(record: Record, folder: Path) -> None:
    """Warn, and note in the record, that other runs of the study in whose folder this one is had another commit.

    That of the current folder counts where the config names classes of the user's own.
    """
    codes = {"mtlrun": "mtlrun"} | ({"git": "the current folder"} if _has_own_classes(record.config) else {})
    environments = list(_environments(folder))
    for key, name in codes.items():
        own = _commit(record.environment, key)
        others = Counter(_commit(environment, key) for environment in environments)
        del others[own], others[None]
        if own is not None and others:
            listed = ", ".join(f"{commit[:_SHORT]} ({count})" for commit, count in others.items() if commit)
            logger.warning(
                "runs of this study were trained with other commits of %s: %s; this one with %s",
                name, listed, own[:_SHORT], extra=NOTED,
            )  # fmt: skip


def _environments(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Yield what the records of other runs of the study hold on their environment, those that were written last.

    Each run of a large study would otherwise read all others. `compare` compares the commits of all.
    """
    written: list[tuple[float, Path]] = []
    for path in folder.parent.glob(f"*/{RECORD}"):
        with suppress(OSError):
            written.append((path.stat().st_mtime, path))
    for _, path in nlargest(_MOST + 1, written):
        if path.parent != folder:
            with suppress(OSError, ValueError, AttributeError, TypeError):  # compare names what is no record
                yield dict(json.loads(path.read_bytes()).get("environment") or {})


def _commit(environment: Mapping[str, Any], key: str) -> str | None:
    found = environment.get(key)
    commit = found.get("commit") if isinstance(found, Mapping) else None
    return commit if isinstance(commit, str) else None


def _has_own_classes(node: Any) -> bool:
    """Return True if a config names a class that comes with no installed package of its own."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        own = isinstance(target, str) and target.partition(".")[0] not in _INSTALLED
        return own or any(map(_has_own_classes, node.values()))
    return isinstance(node, list) and any(map(_has_own_classes, node))
