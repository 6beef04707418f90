"""Changed data: a run is not continued on other data than it began with."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mtlrun.errors import DataError
from mtlrun.records.folder import has_checkpoint
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record, find_record
from mtlrun.records.stamps import find_changes
from mtlrun.setup.environment import use_threads
from mtlrun.training.parts import Parts

logger = logging.getLogger("mtlrun")

_MOVED = "continued on"
_WAY_ON = "restore the data to continue, or train anew with runtime.rerun=true"


def record_to_continue(config: Mapping[str, Any]) -> tuple[Record | None, str]:
    """Return the record of a run that has a checkpoint, None if there is none, and what is wrong with the file, or "".

    Raises:
        DataError: it was written by a later version of mtlrun.
    """
    record, problem = find_record(config)
    if not has_checkpoint(run_folder(config)):
        return None, problem
    if problem:
        problem += "; so whether the data have changed since this run was begun cannot be known"
    return record, problem


def check_files(record: Record) -> list[str]:
    """Return the paths of the files of a run that may have changed, since only their times can be compared.

    Raises:
        DataError: a file is not what it was.
    """
    changes = find_changes(record.data)
    if changes.certain:
        raise DataError(f"{record.run_id} was begun with other data: {changes.describe()}; {_WAY_ON}")
    return changes.possible


def check_splits(record: Record, parts: Parts) -> None:
    """Raise DataError if a split differs from the one that the run has been trained on."""
    for name, summary in parts.splits.items():
        then = record.splits.get(name, {}).get("fingerprint")
        if then is not None and then != summary.fingerprint:
            raise DataError(
                f"{record.run_id} was begun with other data: the {name} split has other samples, labels or weights "
                f"now, though the config is the same; {_WAY_ON}"
            )


def continue_as_begun(record: Record, parts: Parts) -> Parts:
    """Use the number of threads that a run was begun with; return its parts with a note on a change of device, if any.

    Args:
        record: of the run so far.
        parts: of the run that goes on.
    """
    begun = record.environment.get("threads")  # an earlier version left it to PyTorch
    if isinstance(begun, int) and begun >= 1 and begun != torch.get_num_threads():
        use_threads(begun)
        logger.info("on %d threads, with which this run was begun", begun)
    notes = [note for note in record.notes if note.startswith(_MOVED)]
    before, now = str(record.environment.get("device", parts.device)).split(":")[0], parts.device.type
    if before != now:
        notes.append(
            f"{_MOVED} {now}, after {before}: the result may differ from that of one device, by rounding, and since "
            "random numbers that are drawn on the device, such as the masks of dropout, are others"
        )
    return replace(parts, notes=[*parts.notes, *notes])


def log_possible_changes(paths: list[str]) -> None:
    """Warn that files may have changed."""
    if paths:
        logger.warning(
            "%s: modified since this run was begun; names and sizes are the same, and the contents cannot be compared",
            ", ".join(paths),
        )
