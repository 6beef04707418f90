"""Checkpoints: written atomically, the last two kept, checked when read.

A checkpoint is a plain dictionary of tensors, numbers, texts and containers of these, so that it loads with
`weights_only=True`: reading one never runs code.
"""

import logging
import os
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy
import torch
from torch import Tensor

from mtlrun.errors import CheckpointError
from mtlrun.records.folder import BEST, FRESH, LAST, PREVIOUS, open_atomically, storing, sync_folder
from mtlrun.training.selection import SelectedModel, merge_states

FORMAT = 3

logger = logging.getLogger(__name__)


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old file or the new one.

    Raises:
        StorageError: the disk is full, the folder is not writable, ...; the old file is still there.
    """
    with open_atomically(path) as file:
        remembering: Any = _RemembersError(file)
        try:
            torch.save({"format": FORMAT, **state}, remembering)
        except RuntimeError:
            if remembering.error is not None:
                raise remembering.error from None
            raise


class _RemembersError:
    """A file that keeps the first error of a write, in whose place PyTorch raises one on positions in the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write `content`; torch.save needs nothing else of a file but `flush`."""
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Write `state` as the newest training state in `folder`, keeping the one before it."""
    fresh = folder / FRESH
    save(state, fresh)
    with storing(folder / LAST):
        if (folder / LAST).exists():
            os.replace(folder / LAST, folder / PREVIOUS)
        os.replace(fresh, folder / LAST)
    sync_folder(folder)


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
        raise CheckpointError(
            f"{path} has checkpoint format {state.get('format')}, and this version of mtlrun reads format {FORMAT}; "
            "train that run anew (runtime.rerun=true), or use the version that wrote it"
        )
    return state


def load_last(folder: Path) -> dict[str, Any] | None:
    """Return the newest readable training state in `folder`, or None; warn of a damaged one."""
    for name in (LAST, PREVIOUS):
        try:
            state = load(folder / name)
        except CheckpointError as error:
            logger.warning("%s; going back to the one before it", error)
            continue
        if state is not None:
            return state
    return None


def load_best(folder: Path) -> dict[str, Tensor] | None:
    """Return the state of the selected model in `folder`, None if there is none.

    Raises:
        CheckpointError: as for `load`.
    """
    best = load(folder / BEST)
    return None if best is None else merge_states(best["model_states"])


class Stateful(Protocol):
    """Anything that changes during training."""

    def state_dict(self) -> Any:
        """Return the state as a checkpoint can hold it."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore what `state_dict` returned."""


def save_training(parts: Mapping[str, Stateful], folder: Path) -> None:
    """Write the state of all `parts` of a training as the newest one in `folder`."""
    save_last({name: part.state_dict() for name, part in parts.items()}, folder)


def restore_training(parts: Mapping[str, Stateful], selected: SelectedModel, folder: Path) -> bool:
    """Restore the newest training state in `folder`, and the selected model; return False if there is none.

    If an evaluation was made but best.pt cannot be read, the training cannot be continued, and nothing is restored.
    """
    state = load_last(folder)
    if state is None:
        return False
    if state["progress"]["evaluations"] > 0:
        try:
            best = load(folder / BEST)
        except CheckpointError as error:
            logger.warning("%s", error)
            best = None
        if best is None:
            logger.warning("without a readable %s the run cannot be continued; it starts anew", BEST)
            return False
        selected.load_state_dict(best)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return True


class Generators:
    """The states of all global random generators."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states as a checkpoint can hold them."""
        version, internal, gauss = random.getstate()
        numpy_state: Any = numpy.random.get_state(legacy=True)
        algorithm, keys, position, has_gauss, cached = numpy_state
        return {
            "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(internal), gauss],
            "numpy": [str(algorithm), torch.from_numpy(keys.astype(numpy.int64)), position, has_gauss, float(cached)],
        }

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Set the generators to what `state_dict` returned."""
        torch.random.set_rng_state(states["torch"])
        if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))
        algorithm, keys, position, has_gauss, cached = states["numpy"]
        numpy.random.set_state((algorithm, keys.numpy().astype(numpy.uint32), position, has_gauss, cached))
