"""Checkpoints: the state of a training, of which the last two are kept, and the weights of the selected model.

A checkpoint is a plain dictionary of tensors, numbers, texts and containers of these, so that it loads with
`weights_only=True`: reading one never runs code.
"""

import logging
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from mtlrun.errors import CheckpointError, DamagedCheckpointError, MtlrunError
from mtlrun.records.folder import BEST, FRESH, LAST, PREVIOUS, storing, sync_folder
from mtlrun.training.checkpoint_file import load, refuse_other_version, save
from mtlrun.training.selection import merge_states
from mtlrun.weightings.state.generators import seed_from

# Keys of every checkpoint beside `format`, and the two kinds.
_KIND, _RUN = "kind", "run"
_TRAINING, _SELECTED = "training state", "selected model"

logger = logging.getLogger(__name__)


class Stateful(Protocol):
    """Anything that changes during training."""

    def state_dict(self) -> Any:
        """Return the state as a checkpoint can hold it."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore what `state_dict` returned; raise any error if that is not what `state` is."""


class Checkpoints:
    """The checkpoints of a run: last.pt and previous.pt, from which it is continued, and best.pt, which is its result.

    The state of a training includes the selected weights: what is continued from does not depend on best.pt, which may
    be of a later evaluation, damaged or gone, and is written again.

    Args:
        folder: where they are.
        run: the run's ID, which each of them holds.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._run = folder, run

    def save_training(self, parts: Mapping[str, Stateful]) -> None:
        """Write the state of all `parts` of a training as the newest one, keeping the one before it.

        Raises:
            StorageError: as for `save`.
        """
        last, fresh = self._folder / LAST, self._folder / FRESH
        save(self._mark(_TRAINING) | {name: part.state_dict() for name, part in parts.items()}, fresh)
        with storing(last):
            if last.exists():
                os.replace(last, self._folder / PREVIOUS)
            os.replace(fresh, last)
        sync_folder(self._folder)

    def restore_training(self, parts: Mapping[str, Stateful]) -> bool:
        """Restore the newest state that can be; return False if there is none, since no file is there or undamaged.

        Raises:
            CheckpointError: a state is of another version, or undamaged but not one that these parts can have. What of
                it had been restored by then is of no use.
        """
        misfit = None
        for name, next_try in ((LAST, "going back to the one before it"), (PREVIOUS, "there is none before it")):
            path = self._folder / name
            try:
                state = self._load(path, _TRAINING)
                if state is None:
                    continue
                _restore(parts, state, path)
            except DamagedCheckpointError as error:
                logger.warning("%s; %s", error, next_try)
            except _MisfitError as error:
                misfit = misfit or error
                logger.warning("%s; %s", error, next_try)
            else:
                if name == PREVIOUS:
                    with storing(path):
                        os.replace(path, self._folder / LAST)  # before the damaged one can take its place
                    sync_folder(self._folder)
                return True
        if misfit is not None:
            raise misfit
        if any((self._folder / name).exists() for name in (LAST, PREVIOUS)):
            logger.warning("without an undamaged checkpoint the run cannot be continued; it starts anew")
        return False

    def copy_training(self, to: "Checkpoints") -> bool:
        """Write the newest undamaged state as that of another run; return False if there is none.

        Raises:
            CheckpointError: it is of another version.
            StorageError: as for `save`.
        """
        for name in (LAST, PREVIOUS):
            try:
                state = self._load(self._folder / name, _TRAINING)
            except DamagedCheckpointError as error:
                logger.warning("%s", error)
                continue
            if state is not None:
                save(to._mark(_TRAINING) | state, to._folder / LAST)
                return True
        return False

    def save_best(self, weights: Mapping[str, Any]) -> None:
        """Write `SelectedModel.weights` as best.pt.

        Raises:
            StorageError: as for `save`.
        """
        save(self._mark(_SELECTED) | dict(weights), self._folder / BEST)

    def load_best(self) -> dict[str, Tensor] | None:
        """Return the state of the selected model, None if there is no best.pt.

        Raises:
            CheckpointError: it is damaged, of another run or of another version of mtlrun, or holds a model per task.
        """
        states = self.load_model_states()
        return None if states is None else merge_states(states)

    def load_model_states(self) -> list[dict[str, Tensor]] | None:
        """Return the model states of best.pt, one for each separate selection, None if there is no best.pt.

        Raises:
            CheckpointError: it is damaged, of another run or of another version of mtlrun.
        """
        best = self._load(self._folder / BEST, _SELECTED)
        if best is None:
            return None
        states: list[dict[str, Tensor]] = best["model_states"]
        return states

    def _mark(self, kind: str) -> dict[str, Any]:
        return {_KIND: kind, _RUN: self._run}

    def _load(self, path: Path, kind: str) -> dict[str, Any] | None:
        """Return the checkpoint of this kind, of this run, None if there is none; without what identifies it."""
        state = load(path)
        if state is None:
            return None
        found_kind, found_run = (state.pop(key, None) for key in (_KIND, _RUN))
        del state["format"]
        if found_run != self._run:
            raise DamagedCheckpointError(f"{path} is of another run, {found_run}")
        if found_kind != kind:
            raise DamagedCheckpointError(f"{path} holds a {found_kind}, and not a {kind}")
        return state


def check_version(folder: Path) -> None:
    """Raise CheckpointError if a state that a run would be continued from is of another version of mtlrun."""
    for name in (LAST, PREVIOUS):
        refuse_other_version(folder / name)


class _MisfitError(CheckpointError):
    """A state of this run that its parts cannot have: the program, or a class of the user's, is not what it was."""


def _restore(parts: Mapping[str, Stateful], state: Mapping[str, Any], path: Path) -> None:
    """Restore all parts, in their order. Each one replaces its whole state, so nothing is left of an earlier try."""
    try:
        if state.keys() != parts.keys():
            raise KeyError(*sorted(state.keys() ^ parts.keys()))
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except MtlrunError:  # a log file cannot be cut back
        raise
    except Exception as error:
        raise _MisfitError(
            f"{path} does not fit this run ({type(error).__name__}: {error}); if the code of a component has changed "
            "since, restore it, or train anew with runtime.rerun=true"
        ) from error


class Generators:
    """The states of the global random generators of the CPU and of the run's device; other GPUs are left alone.

    Args:
        device: of the run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Return the states as a checkpoint can hold them."""
        version, internal, gauss = random.getstate()
        numpy_state: Any = numpy.random.get_state(legacy=True)
        algorithm, keys, position, has_gauss, cached = numpy_state
        return {
            "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
            "python": [version, list(internal), gauss],
            "numpy": [str(algorithm), torch.from_numpy(keys.astype(numpy.int64)), position, has_gauss, float(cached)],
        }

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Set the generators to what `state_dict` returned; on a GPU after a CPU, its generator starts from there."""
        torch.random.set_rng_state(states["torch"])
        if self._device.type == "cuda":
            if states["cuda"] is None:  # else the masks of dropout would be those of a run's first steps once more
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(seed_from(states["torch"]))
            else:
                torch.cuda.set_rng_state(states["cuda"], self._device)
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))
        algorithm, keys, position, has_gauss, cached = states["numpy"]
        numpy.random.set_state((algorithm, keys.numpy().astype(numpy.uint32), position, has_gauss, cached))
