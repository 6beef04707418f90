"""The lock of a run folder, which one process at a time holds, and which ends with that process however it ends."""

import errno
import fcntl
import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path

from mtlrun.errors import LockLostError, RunInUseError

LOCK = ".lock"
# On file systems without locks: exists while a process holds the folder, and names it.
HOLDER = ".holder"

_IS_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_IS_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_TRIES = 10


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Args:
        process: its number.
        host: name of the machine.
        machine: what tells machines, their starts and containers apart; None if the system does not show it.
        began: when the process began, in the system's units, since numbers of processes are reused; None likewise.
        since: when it took the lock.
    """

    process: int
    host: str
    machine: str | None
    began: str | None
    since: str

    @classmethod
    def this_process(cls) -> "Holder":
        """Return this process, as one that takes a lock now."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, process: int) -> "Holder":
        """Return a process of this machine, as one that takes a lock now."""
        return cls(process, platform.node(), _machine(), _began(process), f"{datetime.now():%Y-%m-%d %H:%M:%S}")

    @classmethod
    def parse(cls, text: str) -> "Holder | None":
        """Return the holder that a text describes, None if it describes none."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def has_ended(self) -> bool:
        """Return True if the process certainly runs no more; nothing is known of processes of other machines."""
        if self.machine is None or self.machine != _machine():
            return False
        began = _began(self.process)
        return not process_exists(self.process) if began is None else began != self.began

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


class FolderLock:
    """The lock of a folder, held from the making of this object until `release`, or the end of the process.

    The operating system's lock of a file (flock), or, on a file system that has none, a file that exists as long as the
    lock is held. Such a file outlives a process that is killed: the next one on the same machine sees that its holder
    is gone, and others ask their user.

    Args:
        folder: which exists.

    Raises:
        RunInUseError: another process holds the lock; the message names it.
        OSError: a file in the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Why there is another guard than the operating system's lock; None where there is none.
        self.note: str | None = None
        self._path = folder / LOCK
        self._file = self._lock_file()
        _held.add(self)

    def _lock_file(self) -> FileIO:
        for _ in range(_TRIES):
            file = open(self._path, "a+b", buffering=0)  # noqa: SIM115 (closing it releases the lock)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                text = file.read().decode(errors="replace").strip()
                file.close()
                if error.errno in _IS_HELD:
                    raise self._in_use(text) from None
                return self._make_holder_file(error)
            if not _is_lost(file, self._path):
                _write(file, str(Holder.this_process()))
                return file
            file.close()  # it was removed, or replaced, before it was locked
        raise RunInUseError(f"{self._path} is replaced all the time; find out by what, and stop it first")

    def _make_holder_file(self, error: OSError) -> FileIO:
        self._path = self.folder / HOLDER
        self.note = (
            f"the file system of {self.folder} has no locks ({error.strerror}); {self._path}, which exists as long as "
            "a process trains this run, is in their place"
        )
        while True:
            try:
                file = open(self._path, "xb", buffering=0)  # noqa: SIM115 (open as long as the lock is held)
            except FileExistsError:
                self._remove_if_ended()
                continue
            _write(file, json.dumps(asdict(Holder.this_process())))
            return file

    def _remove_if_ended(self) -> None:
        """Remove the file of a holder that has ended.

        Raises:
            RunInUseError: it has not, or that is not known.
        """
        try:
            holder = Holder.parse(self._path.read_text(errors="replace"))
        except FileNotFoundError:
            return
        if holder is None or not holder.has_ended():
            hint = f" (the file system has no locks: if that process has ended, remove {self._path})"
            raise self._in_use("" if holder is None else str(holder), hint)
        self._path.unlink(missing_ok=True)

    def _in_use(self, holder: str, hint: str = "") -> RunInUseError:
        holder = holder or "another process"
        return RunInUseError(f"{self.folder} is being trained by {holder}; wait for it, or stop it first{hint}")

    def check(self) -> None:
        """Raise LockLostError if the file of the lock was removed or replaced, so that another process may hold it."""
        if _is_lost(self._file, self._path):
            raise LockLostError(self._path)

    def release(self) -> None:
        """Let others have the lock."""
        if self not in _held:
            return  # in a child of the process that holds it
        _held.remove(self)
        if self._path.name == HOLDER and not _is_lost(self._file, self._path):
            self._path.unlink(missing_ok=True)
        self._file.close()

    def close_in_child(self) -> None:
        """Close the file in a child of this process, which would hold the lock on if it outlived its parent."""
        self._file.close()


_held: set[FolderLock] = set()


def check_lock(path: Path) -> None:
    """Raise LockLostError if `path` is in a folder that this process has locked, and the lock is lost."""
    for lock in _held:
        if path.is_relative_to(lock.folder):
            lock.check()


def _close_in_child() -> None:
    for lock in _held:
        lock.close_in_child()
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _write(file: FileIO, text: str) -> None:
    """Write who holds the lock, for those who meet it; where that fails, the lock holds without it."""
    try:
        file.truncate(0)
        file.write(text.encode())
    except OSError:
        pass


def _is_lost(file: FileIO, path: Path) -> bool:
    """Return True if an open file is no longer the one at `path`."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError as error:
        return error.errno in _IS_GONE


def _machine() -> str | None:
    """Return what this start of this machine, or container, does not have in common with others."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(process: int) -> str | None:
    """Return when a process began, in the system's units, "" if it has ended; None if the system does not show it."""
    try:
        # "123 (name) state ... start time ...", where the name may hold anything.
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]  # one that has ended stays until its parent asks how


def process_exists(pid: int) -> bool:
    """Return True if there is such a process on this machine that has not ended, or if that cannot be known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # that of another user; no number of a process
        return True
    return _began(pid) != ""
