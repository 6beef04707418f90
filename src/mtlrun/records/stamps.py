"""Stamps of data: what files and folders looked like when a run read them, so that a later change is noticed."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# Contents of more bytes, or of more files, than these are not hashed, so that a run over a network file system starts.
_MOST_BYTES = 2**31
_MOST_FILES = 20_000
_BLOCK = 2**20


@dataclass(frozen=True)
class Stamp:
    """What a file, all files below a folder, or those of a pattern looked like.

    Args:
        files: number of files.
        size: in bytes, of all files.
        names: hash of the names and sizes.
        times: hash of the names and times of modification.
        newest: latest time of modification, seconds since 1970.
        content: hash of the names and contents; None where there is too much to be read, or a file cannot be.
    """

    files: int
    size: int
    names: str
    times: str
    newest: float
    content: str | None


@dataclass(frozen=True)
class Changes:
    """Differences between stamps and what is on disk now.

    Args:
        certain: {path: what has changed}.
        possible: the paths of which only times of modification differ, and whose contents cannot be compared: they are
            too large, or cannot be read.
    """

    certain: dict[str, str]
    possible: list[str]

    def describe(self) -> str:
        """Return the certain changes in one line."""
        return "; ".join(f"{path} {what}" for path, what in self.certain.items())


def take_stamps(paths: Iterable[str]) -> dict[str, Stamp]:
    """Return the stamp of each path that exists.

    Args:
        paths: files, folders, or patterns as `glob` takes them, such as `photos/**/*.png`.
    """
    return {path: stamp for path in paths if (stamp := _take(path)).files}


def find_changes(stamps: Mapping[str, Mapping[str, Any]]) -> Changes:
    """Compare stamps with the files of today: names and sizes first, then times, and contents where times differ.

    Args:
        stamps: {path: a Stamp, as a dictionary}, as a record holds them.
    """
    certain, possible = {}, []
    for path, content in stamps.items():
        then, now = Stamp(**content), _look(path)
        if not now.files:
            certain[path] = "is gone"
        elif then.names != now.names:
            certain[path] = _difference(then, now)
        elif then.times != now.times:
            content_now = None if then.content is None else _hash_content(path)
            if content_now is None:
                possible.append(path)
            elif then.content != content_now:
                certain[path] = f"has other content of the same size, modified {_date(now.newest)}"
    return Changes(certain, possible)


def explain_result_of_changed_data(stamps: Mapping[str, Mapping[str, Any]], trained: str) -> list[str]:
    """Return a line for each path that has changed, or may have, since a finished run was trained.

    Args:
        stamps: see `find_changes`.
        trained: date and time in ISO format.
    """
    changes = find_changes(stamps)
    lines = [
        f"{path} {what}: the result is that of the data as it was on {trained[:10]}; train anew with runtime.rerun=true"
        for path, what in changes.certain.items()
    ]
    return lines + [
        f"{path} was modified since: whether the result of {trained[:10]} is that of the same data cannot be known, "
        "since its content cannot be compared; runtime.rerun=true trains anew"
        for path in changes.possible
    ]


def as_plain(stamps: Mapping[str, Stamp]) -> dict[str, dict[str, Any]]:
    """Return stamps as a record holds them."""
    return {path: asdict(stamp) for path, stamp in stamps.items()}


def _take(path: str) -> Stamp:
    look = _look(path)
    small = look.size <= _MOST_BYTES and look.files <= _MOST_FILES
    return Stamp(**(asdict(look) | {"content": _hash_content(path) if small else None}))


def _look(path: str) -> Stamp:
    """Return a stamp without the content."""
    names, times = _digest(), _digest()
    files, size, newest = 0, 0, 0.0
    for name, file in _walk(path):
        status = file.stat()
        names.update(f"{name}\0{status.st_size}\0".encode(errors="surrogateescape"))
        times.update(f"{name}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        files, size, newest = files + 1, size + status.st_size, max(newest, status.st_mtime)
    return Stamp(files, size, names.hexdigest(), times.hexdigest(), newest, None)


def _walk(path: str) -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of each file, in a fixed order. Names do not depend on where a folder lies."""
    if os.path.isfile(path):
        yield "", Path(path)
    elif os.path.isdir(path):
        yield from _walk_folder(Path(path))
    elif glob.has_magic(path):
        files = [name for name in sorted(glob.glob(path, recursive=True)) if os.path.isfile(name)]
        folder = os.path.commonpath([os.path.dirname(name) for name in files]) if files else ""
        for name in files:
            yield os.path.relpath(name, folder or None), Path(name)


def _walk_folder(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name below `path`, file) of each file; links to folders are followed once."""
    seen = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_file():
                yield str(file.relative_to(path)), file


def _hash_content(path: str) -> str | None:
    """Return the hash of the names and contents; None if a file cannot be read."""
    content = _digest()
    for name, file in _walk(path):
        content.update(f"{name}\0".encode(errors="surrogateescape"))
        try:
            with open(file, "rb", buffering=0) as opened:
                while block := opened.read(_BLOCK):
                    content.update(block)
        except OSError:
            return None
    return str(content.hexdigest())


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def _difference(then: Stamp, now: Stamp) -> str:
    """Return in words how names or sizes differ."""
    date = _date(now.newest)
    if then.files != now.files:
        return f"holds {now.files} files, and held {then.files}; the newest is of {date}"
    if then.size != now.size:
        return f"has {now.size:,} bytes, and had {then.size:,}; modified {date}"
    return f"holds files of other names or sizes; the newest is of {date}"


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
