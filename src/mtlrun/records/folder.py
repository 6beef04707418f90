"""The run folder: the names of its files, writing them atomically, and holding it while a process trains."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mtlrun.errors import ConfigError, StorageError
from mtlrun.records.lock import HOLDER, LOCK, FolderLock, check_lock

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
HEARTBEAT = ".heartbeat"  # exists while the run runs
#: In the folder of a study: what each sweep that is under way has still to train, `<host>-<pid>.json`.
SWEEPS = ".sweeps"
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
_LONGEST_NAME = 160  # bytes, of what is made below a run's folder: an event file is named after its machine
# What the file system, and not the choice of the folder, is to blame for.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


def check_writable(folder: Path) -> None:
    """Raise ConfigError if the folder of a run cannot be created or written to. Creates nothing."""
    if problem := _find_problem(folder):
        raise ConfigError(f"runtime.root: {problem}; choose another folder with runtime.root=<folder>")


def _find_problem(folder: Path) -> str | None:
    """Return why files cannot be made in a folder, which need not exist yet; None if nothing is known against it."""
    if not str(folder).isprintable():
        return f"{str(folder)!r} has characters that cannot be printed"
    existing = folder
    try:
        while not os.path.lexists(existing) and existing != existing.parent:
            existing = existing.parent
        if not existing.exists():
            return f"{existing} is a link to {os.readlink(existing)}, and there is nothing"
        if not existing.is_dir():
            return f"{existing} is a file, and {folder} must be a folder in which files can be made"
        too_long = max(folder.parts, key=_num_bytes)
        if _num_bytes(too_long) > (limit := os.pathconf(existing, "PC_NAME_MAX")):
            return f"a name of {_num_bytes(too_long)} bytes in its path is longer than the {limit} that there can be"
        if _num_bytes(str(folder)) + _LONGEST_NAME > (limit := os.pathconf(existing, "PC_PATH_MAX")):
            return f"a path of {_num_bytes(str(folder))} bytes leaves no room for files, whose paths can have {limit}"
        if not os.access(existing, os.W_OK | os.X_OK):
            return f"{existing} is not writable"
        if existing == folder:
            return _find_obstacle(folder)
    except OSError as error:
        return f"{existing} cannot be looked at ({error.strerror})"
    return None


def _find_obstacle(folder: Path) -> str | None:
    """Return what has the place of a file or folder that a run writes, None if nothing has."""
    if os.path.lexists(checkpoints := folder / CHECKPOINTS) and not checkpoints.is_dir():
        return f"{checkpoints} is no folder, and the run keeps its checkpoints there; move it away, or remove it"
    for path in [*_files_of_training(folder), *(folder / name for name in (LOCK, HOLDER, HEARTBEAT, REMOVING))]:
        if path.name != RECORD and os.path.lexists(path) and not path.is_file():  # what is no record is renamed
            kind = "a folder" if path.is_dir() else "no file"
            return f"{path} is {kind}, and the run writes a file of this name; move it away, or remove it"
    return None


def _files_of_training(folder: Path) -> Iterator[Path]:
    """Yield the paths of what a training writes, in the order in which a rerun removes it; some may not exist."""
    for pattern in _WRITTEN:
        yield from [*folder.glob(pattern), _temporary(folder / pattern)]


def _num_bytes(name: str) -> int:
    return len(os.fsencode(name))


@contextmanager
def hold(folder: Path) -> Iterator[FolderLock]:
    """Create the folder and lock it: no other process can train the same run until this one ends, in whatever way.

    Raises:
        RunInUseError: another process holds the lock; the message names it.
        ConfigError: the folder cannot be created.
        StorageError: the disk is full, ...
    """
    try:
        _make_folders(folder)
        lock = FolderLock(folder)
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise StorageError(folder, error) from error
        raise ConfigError(f"runtime.root: {folder} cannot be written to ({error.strerror})") from error
    try:
        yield lock
    finally:
        lock.release()


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
    sync_folder(folder)
    for path in _files_of_training(folder):
        remove(path)
    for changed in (folder / CHECKPOINTS, folder):
        sync_folder(changed)  # before the mark is gone, all that it is about is
    remove(folder / REMOVING)


def has_checkpoint(folder: Path) -> bool:
    """Return True if the run in `folder` has a state to be continued from."""
    return any((folder / CHECKPOINTS / name).exists() for name in (LAST, PREVIOUS))


def remove(path: Path) -> None:
    """Remove a file of the run, if it exists.

    Raises:
        StorageError: it cannot be removed.
    """
    if path.exists():
        with storing(path):
            path.unlink()


def set_aside(path: Path) -> None:
    """Add `.bad` to the name of something that is in the way of a file of the run.

    Raises:
        StorageError: it cannot be renamed.
    """
    with storing(path):
        os.replace(path, path.with_name(f"{path.name}.bad"))
    sync_folder(path.parent)


def sync_folder(folder: Path, *, because_of: Path | None = None) -> None:
    """Wait until the names in a folder are on the disk: a file that was made, renamed or removed is after a power cut.

    Args:
        folder: of the names.
        because_of: the file whose name it is about, for the error; None for the folder.

    Raises:
        StorageError: the disk is full, ...
    """
    with storing(because_of or folder):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
    except OSError as error:  # many file systems cannot do this, and say so in many ways
        if error.errno in _OF_THE_DISK:
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it that do not exist, so that they do after a power cut."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(made):
        _sync_folder(path.parent)


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
        LockLostError: another process may be writing into the folder.
    """
    check_lock(path)
    temporary = _temporary(path)
    with storing(path):
        file = open(temporary, "wb")  # noqa: SIM115 (closed below, so that no error there hides the first one)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except Exception:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
