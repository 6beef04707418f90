"""The run folder: the names of its files, writing them atomically, and the lock of the process that trains."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mtlrun.errors import ConfigError, RunInUseError

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
#: In the folder of all studies: the baselines that runs on the same data share.
BASELINES = ".baselines"

# Everything that a training writes and a rerun removes. Other files in the folder are the user's; the lock is held.
_WRITTEN = (
    RECORD, CONFIG, METRICS, SAMPLE_IDS, LEARNED, *PREDICTIONS.values(), LOG, EVENTS, f"{CHECKPOINTS}/*.pt",
)  # fmt: skip


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
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+")  # noqa: SIM115 (held open on purpose: closing releases the lock)
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


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends.

    A crash at any moment leaves the old file or the new one; an error in the block leaves the old one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
