"""One file of a checkpoint: written atomically, and read only if all of it is what was written.

It is what `torch.save` writes, a zip archive, and ends with a comment that holds the SHA-256 of all bytes before it.
The checksums in an archive do not cover its directory: with one wrong byte there, wrong tensors would be loaded.
"""

import copy
import hashlib
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mtlrun.errors import CheckpointError, DamagedCheckpointError
from mtlrun.records.folder import open_atomically

FORMAT = 6

_COMMENT = b"mtlrun checkpoint, format %d, SHA-256 "
_COMMENT_IN_FILE = re.compile(rb"mtlrun checkpoint, format (\d+), SHA-256 ([0-9a-f]{64})\Z")
_LONGEST_COMMENT = 200
_HEX_DIGITS = 64
# The end of a zip archive without a comment; its last two bytes are the length of the comment.
_END = 22
_BLOCK = 2**20


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old file or the new one.

    Raises:
        StorageError: the disk is full, the folder is not writable, ...; the old file is still there.
    """
    with open_atomically(path) as file:
        digesting: Any = _DigestingFile(file)
        try:
            torch.save({"format": FORMAT, **_compact(state)}, digesting)
        except RuntimeError:
            if digesting.error is not None:
                raise digesting.error from None
            raise
        digesting.finish()


def _compact(state: Any) -> Any:
    """Return a state with copies of the tensors that are a part of a larger one, all of which would be written."""
    if isinstance(state, Tensor):
        return state.clone() if state.untyped_storage().nbytes() > state.nbytes else state
    if isinstance(state, dict):
        compact = copy.copy(state)  # that of a module has an attribute besides
        compact.update((key, _compact(value)) for key, value in state.items())
        return compact
    return [_compact(value) for value in state] if isinstance(state, list) else state


class _DigestingFile:
    """A file for `torch.save` to write to, which adds the digest at the end.

    It keeps the first error of a write, in whose place PyTorch raises one on positions in the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._end = b""  # of what was written, not yet in the file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write `content`; torch.save needs nothing else of a file but `flush`."""
        if len(content) < _END:
            content_with_end = self._end + bytes(content)
            self._put(content_with_end[:-_END])
            self._end = content_with_end[-_END:]
        else:
            self._put(self._end)
            self._put(content[:-_END])
            self._end = bytes(content[-_END:])
        return len(content)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def finish(self) -> None:
        """Write the end of the archive, and the digest as its comment."""
        comment = _COMMENT % FORMAT
        self._put(self._end[:-2] + (len(comment) + _HEX_DIGITS).to_bytes(2, "little") + comment)
        self._file.write(self._digest.hexdigest().encode())

    def _put(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise
        self._digest.update(content)


def load(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint at `path`, None if there is none.

    Raises:
        DamagedCheckpointError: it is not what was written, or cannot be read.
        CheckpointError: it is of another version of mtlrun.
    """
    try:
        with open(path, "rb") as file:
            _check(file, path)
            file.seek(0)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedCheckpointError(f"{path} cannot be read ({error.strerror or error})") from error
    return state


def refuse_other_version(path: Path) -> None:
    """Raise CheckpointError if the file is of another version of mtlrun; whether it is damaged is left to `load`."""
    try:
        with open(path, "rb") as file:
            match = _find_comment(file)
            if match is None or int(match[1]) != FORMAT:
                _check(file, path)
    except (OSError, DamagedCheckpointError):
        return


def _find_comment(file: BinaryIO) -> re.Match[bytes] | None:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_COMMENT))
    return _COMMENT_IN_FILE.search(file.read())


def _check(file: BinaryIO, path: Path) -> None:
    """Compare a file with its digest, and then its format with this one, before anything in it is made use of."""
    match = _find_comment(file)
    if match is None:
        found = _format_without_digest(path)
        if found is None or found >= FORMAT:
            raise DamagedCheckpointError(f"{path} is damaged (the digest at its end is missing)")
    else:
        found, left = int(match[1]), file.seek(-_HEX_DIGITS, os.SEEK_END)
        digest = hashlib.sha256()
        file.seek(0)
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
        if digest.hexdigest().encode() != match[2]:
            raise DamagedCheckpointError(f"{path} is damaged (its content does not have the digest at its end)")
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {found}, and this version of mtlrun reads format {FORMAT}; train that run "
            "anew (runtime.rerun=true), or use the version that wrote it"
        )


def _format_without_digest(path: Path) -> int | None:
    """Return the format of a checkpoint of an earlier version, before there were digests; None for anything else."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)["format"]
    except Exception:  # whatever a damaged file leads to
        return None
    return found if type(found) is int else None
