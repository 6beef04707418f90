"""Checkpoints: written atomically, the last two kept, checked when read.

A checkpoint is a plain dictionary of tensors, numbers, texts and containers of these, so that it loads with
`weights_only=True`: reading one never runs code.
"""

import logging
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy
import torch

from mtlrun.errors import CheckpointError

FORMAT = 1
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"

logger = logging.getLogger(__name__)


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old file or the new one.

    Raises:
        CheckpointError: the disk is full, the folder is not writable, ...; what stood at `path` still stands.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error}") from error


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Write `state` as the newest checkpoint of `folder`, keeping the one before it."""
    fresh = folder / "fresh.pt"
    save(state, fresh)
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(fresh, folder / LAST)


def load(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint at `path`, None if there is none.

    Raises:
        CheckpointError: it is truncated, damaged, or of another version of mtlrun.
    """
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # reads everything against its checksums, which torch.load does not
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged (at {damaged})")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {state.get('format')}, this mtlrun reads {FORMAT}")
    return state


def load_last(folder: Path) -> dict[str, Any] | None:
    """Return the newest readable checkpoint of `folder`, or None; one that is damaged is named in a warning."""
    for name in (LAST, PREVIOUS):
        try:
            state = load(folder / name)
        except CheckpointError as error:
            logger.warning("%s; going back to the one before it", error)
            continue
        if state is not None:
            return state
    return None


def generator_states() -> dict[str, Any]:
    """Return the states of all global random generators, as a checkpoint can hold them."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = numpy.random.get_state(legacy=True)
    algorithm, keys, position, has_gauss, cached = numpy_state
    return {
        "torch": torch.random.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
        "numpy": [str(algorithm), torch.from_numpy(keys.astype(numpy.int64)), position, has_gauss, float(cached)],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Set all global random generators to what `generator_states` returned."""
    torch.random.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, position, has_gauss, cached = states["numpy"]
    numpy.random.set_state((algorithm, keys.numpy().astype(numpy.uint32), position, has_gauss, cached))
