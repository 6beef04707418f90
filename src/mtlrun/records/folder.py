"""The run folder: who holds it, and what lies in it."""

import fcntl
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from mtlrun.config.schema import check_root
from mtlrun.errors import ConfigError, RunInUseError
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
LOCK = ".lock"
# All that a run writes; what else lies in its folder is the user's.
_WRITTEN = ("record.json", "metrics.jsonl", "run.log", CONFIG, "events.out.tfevents.*", f"{CHECKPOINTS}/*.pt")


def check_writable(folder: Path) -> None:
    """Raise ConfigError if `folder` cannot be made or written to. Makes nothing."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(
            f"runtime.root: {existing} is a file, and {folder} must be a folder in which files can be made"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"runtime.root: {existing} is not writable; choose another folder with runtime.root=<folder>")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make the folder and hold it: no other process can train the same run until this one ends, however it ends.

    Raises:
        RunInUseError: another process holds it; the message names it.
        ConfigError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+")  # noqa: SIM115 (held open on purpose: closing gives the lock up)
    except OSError as error:
        raise ConfigError(f"runtime.root: {folder} cannot be written to ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunInUseError(f"{folder} is being trained by {holder}; wait for it, or stop it first") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S}")
        file.flush()
        yield


def start_anew(folder: Path) -> None:
    """Remove what an earlier training of this run wrote."""
    for pattern in _WRITTEN:
        for path in folder.glob(pattern):
            path.unlink()


def finished_record(config: Mapping[str, Any]) -> Record | None:
    """Return the record of this run if there is nothing left to train: it is completed, or has diverged."""
    if check_root(config) or config["runtime"].get("rerun"):
        return None
    record = Record.read(run_folder(config))
    return record if record is not None and record.status in ("completed", "diverged") else None
