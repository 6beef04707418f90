"""The files and folders that a run reads: those of its dataset, and all others that its config names."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtlrun.datasets import MultiTaskDataset
from mtlrun.records.folder import BEST, CHECKPOINTS

# Keys whose value may be the name of a folder without a slash in it. Files need no such list: a config value that is
# the name of an existing file is taken for it.
_FOLDER_KEYS = ("root", "path", "folder", "dir", "directory", "init_from")


def find_data_paths(config: Mapping[str, Any], dataset: MultiTaskDataset) -> list[str]:
    """Return the paths, as the config has them, of all that can change the result of a run from outside.

    Args:
        config: the resolved config.
        dataset: built from it; its `data_paths` take the place of what its config names.
    """
    paths = [] if dataset.data_paths is None else [str(path) for path in dataset.data_paths]
    for group, node in config.items():
        if group in ("names", "runtime") or (group == "dataset" and dataset.data_paths is not None):
            continue
        paths += [path for key, value in _leaves(node, group) if (path := _existing(key, value)) is not None]
    return list(dict.fromkeys(paths))


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield (key, text) of all texts below a node of the config."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, key)
    elif isinstance(node, str) and key != "_target_":
        yield key, node


def _existing(key: str, value: str) -> str | None:
    """Return the file or folder that a value of the config names, None if it names none."""
    path = Path(value).expanduser()
    try:
        if path.is_file():
            return str(path)
        if not path.is_dir() or (key not in _FOLDER_KEYS and os.sep not in value):
            return None
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        return None
    best = path / CHECKPOINTS / BEST
    return str(best if best.is_file() else path)  # of a run, the weights are what another run starts from
