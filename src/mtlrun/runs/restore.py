"""restore(): from the folder of a run back to its model with the selected weights, and to the data that it was for."""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlrun.errors import DataError
from mtlrun.models import MultiTaskModel
from mtlrun.records.folder import BEST, CHECKPOINTS
from mtlrun.records.record import Record
from mtlrun.setup.prepare import prepare
from mtlrun.training.checkpoint import Checkpoints
from mtlrun.training.parts import Parts


@dataclass(frozen=True)
class Restored:
    """A finished run.

    Args:
        record: what it left behind.
        parts: its components, on the device; the model holds the selected weights and is in evaluation mode.
    """

    record: Record
    parts: Parts

    @property
    def model(self) -> MultiTaskModel:
        """The model."""
        return self.parts.model


def restore(folder: Path, *, device: str = "auto") -> Restored:
    """Return the run in a folder, with its model as it was selected. Nothing is written.

    Random numbers are those of the run's start, and the number of threads is that of the run, as after `prepare`.

    Args:
        folder: of a completed run, wherever it is now.
        device: as `runtime.device`.

    Raises:
        DataError: there is no completed run, or its data are gone or are not what they were.
        ConfigError: the run cannot be prepared anymore; the problems name the keys.
        CheckpointError: best.pt is gone, damaged, of another version, or holds a model for each task.
    """
    record = Record.read(folder)
    if record is None or record.status != "completed":
        found = "no run" if record is None else f"a run that is {record.status}"
        raise DataError(f"{folder}: found {found}; give the folder of a completed run")
    check_has_model(folder, record)
    # Read first: it takes no time, and whether it is there is the most likely question.
    state = Checkpoints(folder / CHECKPOINTS, record.run_id).load_best()
    if state is None:
        raise DataError(f"{folder / CHECKPOINTS / BEST} is gone, so there are no weights of this run")
    parts = prepare(as_restored(record.config, device))
    check_same_splits(record, parts, folder)
    parts.model.load_state_dict(state)
    parts.model.eval()
    return Restored(record, parts)


def check_has_model(folder: Path, record: Record) -> None:
    """Raise DataError if the result in `folder` is that of an ensemble; a merged model is one like any other."""
    if record.made_from is not None and not (folder / CHECKPOINTS / BEST).exists():
        raise DataError(f"{folder}: an ensemble has no weights of its own; give one of the runs that it is made from")


def check_same_splits(record: Record, parts: Parts, folder: Path) -> None:
    """Raise DataError if a split has other samples, labels or weights than when the run in `folder` was trained."""
    for name, summary in parts.splits.items():
        then = record.splits.get(name, {}).get("fingerprint")
        if then is not None and then != summary.fingerprint:
            raise DataError(
                f"{folder}: the {name} split has other samples, labels or weights now than when the run was trained; "
                "restore the data"
            )


def as_restored(config: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the config of a run without what only a training needs, such as the weights that its networks start from.

    Args:
        config: of the record.
        device: as `runtime.device`.
    """
    restored: dict[str, Any] = copy.deepcopy(dict(config))
    # Nothing is written, so that the folder of all studies need not be writable, or exist on this machine.
    restored["runtime"] |= {"device": device, "num_workers": 0, "rerun": False, "root": tempfile.gettempdir()}
    for group, key, off in (
        ("model", "init_from", None),
        ("backbone", "weights", None),
        ("trainer", "cuda_graph", False),
        ("trainer", "compile", False),
    ):
        if restored[group].get(key) is not None:
            restored[group][key] = off
    return restored
