"""The run folder: the names of its files, writing them atomically, and the lock of the process that trains."""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mtlrun.errors import ConfigError, RunInUseError, StorageError

RECORD = "record.json"
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SAMPLE_IDS = "splits.json"
LEARNED = "learned.json"  # from the data: classes, categories, scales
PREDICTIONS = {"csv": "predictions.csv", "parquet": "predictions.parquet"}
LOG = "run.log"
EVENTS = "events.out.tfevents.*"
CHECKPOINTS = "checkpoints"
# In CHECKPOINTS; fresh.pt exists only while it takes the place of last.pt.
LAST, PREVIOUS, BEST, FRESH = "last.pt", "previous.pt", "best.pt", "fresh.pt"
LOCK = ".lock"
# Exists while an earlier training is removed; a run that finds it, since the one before was killed, completes that.
REMOVING = ".removing"
#: In the folder of all studies: the baselines that runs on the same data share.
BASELINES = ".baselines"

# Everything that a training writes and a rerun removes, in this order: first what a run would be continued from, last
# what says that there was one. Other files in the folder are the user's; the lock is held.
_WRITTEN = (
    *(f"{CHECKPOINTS}/{name}" for name in (LAST, PREVIOUS, FRESH, BEST)),
    METRICS, EVENTS, LOG, *PREDICTIONS.values(), LEARNED, SAMPLE_IDS, CONFIG, RECORD,
)  # fmt: skip
# What the file system, and not the choice of the folder, is to blame for.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


def check_writable(folder: Path) -> None:
    """Raise ConfigError if `folder` cannot be created or written to. Creates nothing."""
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
    """Create the folder and lock it: no other process can train the same run until this one ends, in whatever way.

    Raises:
        RunInUseError: another process holds the lock; the message names it.
        ConfigError: the folder cannot be created.
        StorageError: the disk is full, ...
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+b", buffering=0)  # noqa: SIM115 (closing it releases the lock)
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise StorageError(folder, error) from error
        raise ConfigError(f"runtime.root: {folder} cannot be written to ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().decode().strip() or "another process"
            raise RunInUseError(f"{folder} is being trained by {holder}; wait for it, or stop it first") from None
        with suppress(OSError):  # the lock holds without this text, which is for those who meet it
            file.truncate(0)
            holder = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
            file.write(holder.encode())
        yield


def is_being_removed(folder: Path) -> bool:
    """Return True if the removal of an earlier training has begun and not ended: its files mean nothing anymore."""
    return (folder / REMOVING).exists()


def start_anew(folder: Path) -> None:
    """Remove what an earlier training of this run wrote; if killed on the way, the next run completes it.

    Raises:
        StorageError: a file cannot be removed.
    """
    with storing(folder / REMOVING):
        (folder / REMOVING).touch()
    for pattern in _WRITTEN:
        for path in [*folder.glob(pattern), _temporary(folder / pattern)]:
            remove(path)
    remove(folder / REMOVING)


def remove(path: Path) -> None:
    """Remove a file of the run, if it exists.

    Raises:
        StorageError: it cannot be removed.
    """
    if path.exists():
        with storing(path):
            path.unlink()


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes, makes or removes `path`, into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(path, error) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends.

    A crash at any moment leaves the old file or the new one; an error in the block leaves the old one.

    Raises:
        StorageError: the disk is full, ...
    """
    temporary = _temporary(path)
    with storing(path):
        file = open(temporary, "wb")  # noqa: SIM115 (closed below, so that no error there hides the first one)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
        except Exception:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
