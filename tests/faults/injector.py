"""Faults at the n-th change that a process makes below a folder: it is killed, signaled, or the call fails.

Every call by which Python code changes files is replaced while a plan is in force: the opening of files for writing,
each write that reaches the operating system, truncate, fsync, and all that makes, renames or removes a name. Writes are
seen below Python's buffers, where a full disk shows, and so are those of `torch.save`, which is handed Python's files.
`sizes_after` recomputes the files from the list of changes: a test compares it with the folder, so that none is missed.
"""

import builtins
import errno
import io
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

#: What happens at the n-th change: {name: (what, whether all later changes fail as well)}.
FAULTS = ("kill", "half", "sigterm", "sigint", "enospc", "full", "eio", "dead", "readonly")
_ERRNO = {
    "enospc": errno.ENOSPC,  # once
    "full": errno.ENOSPC,  # from then on: nothing can be added, names can be removed
    "eio": errno.EIO,  # once
    "dead": errno.EIO,  # from then on, every change
    "readonly": errno.EROFS,  # from then on, every change
}
_BEAT = ".heartbeat"
_LASTING = {"full", "dead", "readonly"}
_ADDING = {"open", "write", "mkdir", "rename", "fsync"}  # what a full disk refuses


@dataclass(frozen=True)
class Change:
    """One change: its kind, the path, relative to the folder, and a detail.

    `detail` is the new name of a rename, the start and number of bytes of a write, the size of a truncate, and
    whether an opened file is emptied.
    """

    kind: str
    path: str
    detail: object = None


@dataclass
class Plan:
    """A fault at the n-th change below a folder; without a fault, changes are only listed.

    Args:
        folder: absolute.
        fault: one of `FAULTS`.
        at: the number of the change, counted from 0.
    """

    folder: str
    fault: str | None = None
    at: int = -1
    changes: list[Change] = field(default_factory=list)
    rest_fails: bool = False  # that of a write of which half was made
    process: int = field(default_factory=os.getpid)  # not in those that it starts

    def below(self, path, dir_fd=None):
        """Return the path relative to the folder, None for one elsewhere."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return None
        if os.getpid() != self.process:
            return None
        path = os.fsdecode(path)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        path = os.path.abspath(path)
        if os.path.basename(path).startswith(_BEAT):  # renewed by the clock, and of no consequence
            return None
        return os.path.relpath(path, self.folder) if path == self.folder or path.startswith(self.folder + "/") else None

    def meet(self, kind, path, detail=None):
        """Note a change that is about to be made. Return True if only half of a write is to be made.

        Raises:
            OSError: the change is to fail.
        """
        number = len(self.changes)
        self.changes.append(Change(kind, path, detail))
        if self.fault in _ERRNO:
            due = number == self.at or (
                number > self.at >= 0 and self.fault in _LASTING and (self.fault != "full" or kind in _ADDING)
            )
            if due and kind == "write" and number == self.at and self.fault in ("full", "enospc"):
                return True
            if due:
                raise OSError(_ERRNO[self.fault], os.strerror(_ERRNO[self.fault]), path)
        elif number == self.at:
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "half":
                return True
            os.kill(os.getpid(), signal.SIGTERM if self.fault == "sigterm" else signal.SIGINT)
        return False

    def write(self, path, start, content, write):
        """Write `content` with the function `write`, or half of it, after which the process ends or the rest fails."""
        content = memoryview(content).cast("B")
        if self.rest_fails:
            self.rest_fails = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if not self.meet("write", path, (start, len(content))):
            return write(content)
        written = write(content[: len(content) // 2])
        if self.fault == "half":
            os.kill(os.getpid(), signal.SIGKILL)
        self.rest_fails = True
        return written or self.write(path, start, content, write)


class CountedFile(io.FileIO):
    """A file without a buffer whose changes meet the plan."""

    plan: Plan
    path: str
    appends: bool

    def write(self, content):
        start = os.fstat(self.fileno()).st_size if self.appends else self.tell()
        return self.plan.write(self.path, start, content, super().write)

    def truncate(self, size=None):
        self.plan.meet("truncate", self.path, self.tell() if size is None else size)
        return super().truncate(size)


def install(plan):
    """Let all changes that this process makes meet the plan, until it ends."""
    real_open, real_os_open, real_write = io.open, os.open, os.write
    real = {name: getattr(os, name) for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "ftruncate",
                                                 "truncate", "fdatasync")}  # fmt: skip

    def counted_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        path = (
            plan.below(file) if set(mode) & set("wax+") and isinstance(file, str | bytes | int | os.PathLike) else None
        )
        if path is None:
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int) and ("x" not in mode or not os.path.exists(file)):
            plan.meet("open", path, "w" in mode or "x" in mode)
        raw_mode = mode.replace("t", "").replace("b", "")
        raw = CountedFile(file, raw_mode, closefd, opener)
        raw.plan, raw.path, raw.appends = plan, path, "a" in mode
        if "b" in mode and buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text

    def counted_os_open(path, flags, mode=0o777, *, dir_fd=None):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            below = plan.below(path, dir_fd)
            if below is not None:
                plan.meet("open", below, bool(flags & os.O_TRUNC))
        return real_os_open(path, flags, mode, dir_fd=dir_fd)

    def counted_os_write(fd, content):
        below = plan.below(fd)
        if below is None:
            return real_write(fd, content)
        return plan.write(below, os.lseek(fd, 0, os.SEEK_CUR), content, lambda part: real_write(fd, part))

    def of_two_names(name):
        def call(source, target, **options):
            below = plan.below(target, options.get("dst_dir_fd"))
            if below is not None:
                plan.meet("rename", plan.below(source, options.get("src_dir_fd")) or os.fspath(source), below)
            return real[name](source, target, **options)

        return call

    def of_one_name(name, kind):
        def call(path, *arguments, dir_fd=None):
            below = plan.below(path, dir_fd)
            if below is not None and (kind != "mkdir" or not os.path.exists(path)):
                plan.meet(kind, below)
            return real[name](path, *arguments, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return call

    def of_file(name, kind):
        def call(file, *arguments):
            below = plan.below(file if isinstance(file, int | str | os.PathLike) else file.fileno())
            if below is not None:
                plan.meet(kind, below, *arguments)
            return real[name](file, *arguments)

        return call

    builtins.open = io.open = counted_open
    os.open, os.write = counted_os_open, counted_os_write
    for name in ("rename", "replace"):
        setattr(os, name, of_two_names(name))
    for name, kind in (("unlink", "unlink"), ("remove", "unlink"), ("rmdir", "rmdir"), ("mkdir", "mkdir")):
        setattr(os, name, of_one_name("unlink" if name == "remove" else name, kind))
    for name, kind in (("fsync", "fsync"), ("fdatasync", "fsync"), ("ftruncate", "truncate"), ("truncate", "truncate")):
        setattr(os, name, of_file(name, kind))


def sizes_after(changes):
    """Return {path: size} of the files, and None for folders, that a list of changes leaves."""
    found: dict[str, int | None] = {}
    for change in changes:
        match change.kind:
            case "mkdir":
                found[change.path] = None
            case "open":
                if change.detail or change.path not in found:
                    found[change.path] = 0
            case "write":
                start, size = change.detail
                found[change.path] = max(found[change.path], start + size)
            case "truncate":
                found[change.path] = change.detail
            case "rename":
                found[change.detail] = found.pop(change.path)
            case "unlink" | "rmdir":
                found.pop(change.path, None)
    return found


def sizes_on_disk(folder):
    """Return what `sizes_after` should."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.stat().st_size
        for path in [Path(folder), *Path(folder).rglob("*")]
        if path.exists()
    }


def unsynced_names(changes):
    """Return the changes of names that a power cut may undo while what was made after them is kept.

    These are names whose folder is not synced before the next file is opened, and removals whose folder is not synced
    before a mark of removal is. Caches are left out.
    """
    found = []
    for number, change in enumerate(changes):
        path = Path(change.detail if change.kind == "rename" else change.path)
        if change.kind not in ("rename", "mkdir", "unlink") or ".baselines" in path.parts or path == Path("."):
            continue
        for later in changes[number + 1 :]:
            if later.kind == "fsync" and later.path == str(path.parent):
                break
            if later.kind == "open" if change.kind != "unlink" else later.path.endswith(".removing"):
                found.append(change)
                break
    return found
