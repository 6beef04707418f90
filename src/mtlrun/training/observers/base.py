"""The interface of what logs a run, and the append-only file that two observers write."""

import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mtlrun.errors import StorageError
from mtlrun.records.folder import storing, sync_folder
from mtlrun.records.notes import NOTED
from mtlrun.records.record import Record
from mtlrun.training.captions import Picture

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, float]]


class Observer:
    """Base of all observers: notified of what happens in a run; every method is optional.

    An observer that writes files gives their sizes as its state, and cuts them back to these sizes when a run is
    continued, so that nothing is logged twice. One that raises an exception is switched off (see `Observers`).
    """

    #: True if a run is not complete without what it writes: its exceptions end the run, which can be continued.
    required = False

    def __str__(self) -> str:
        """Return what to call it in a message."""
        return type(self).__name__

    def started(self, record: Record, step: int) -> None:
        """The run starts, or is continued, at `step`. Called after the state has been restored.

        Args:
            record: all that is known of the run when it starts.
            step: number of steps already made.
        """

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """`trainer.log_every` more steps were made; `values` are means over them, {TensorBoard tag: mean}."""

    def averaged(self, step: int, epoch: int, losses: Mapping[str, float]) -> None:
        """{task: its mean loss over the steps of this epoch so far}, right before `validated`."""

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        """The validation split was evaluated; `selected`: this is now the best checkpoint.

        Under the legacy protocol (`Record.protocol`) it was the test split, and `selected` has no meaning.
        """

    def pictured(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """{task: its picture} of some validation samples, right after `validated`."""

    def tested(self, step: int, metrics: Metrics) -> None:
        """The result: of the selected checkpoint on the test split, or the means over the last evaluations."""

    def closed(self) -> None:
        """The run ended, in whatever way, or the observer was switched off; nothing else is called afterwards."""

    def state_dict(self) -> dict[str, int]:
        """Write everything to the disk and return the state that a continued run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the state, or start anew if it is empty. Called before `started`."""


class AppendFile:
    """A file that only grows, and can be cut back to an earlier size.

    Args:
        path: of the file, which is created if it does not exist.

    Raises:
        StorageError: by all methods: the disk is full, ...
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            self.file: BinaryIO = open(path, "ab")  # noqa: SIM115 (open as long as the run)
        self._name_is_synced = False
        self.has_failed = False

    def write(self, content: bytes) -> None:
        """Append `content`."""
        with self._storing():
            self.file.write(content)

    def flush(self) -> None:
        """Hand what was written to the operating system, so that readers of the file see it."""
        with self._storing():
            self.file.flush()

    def sync(self) -> int:
        """Write the content to the disk and return the size of the file."""
        self.flush()
        with self._storing():
            os.fsync(self.file.fileno())
        if not self._name_is_synced:
            with self._storing():
                sync_folder(self.path.parent, because_of=self.path)
            self._name_is_synced = True
        return self.size()

    def size(self) -> int:
        """Return the number of bytes, written to the disk or not."""
        return self.file.tell()

    def cut(self, size: int) -> None:
        """Remove everything after the first `size` bytes. A file that is shorter stays as it is."""
        with self._storing():
            self.file.truncate(min(size, self.file.seek(0, os.SEEK_END)))
            self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        with self._storing():
            self.file.close()

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            with storing(self.path):
                yield
        except StorageError:
            self.has_failed = True
            raise


class FileObserver(Observer):
    """Base of the observers that write a file, whose state is its size: a continued run cuts it back to that.

    Where the file has become shorter, since it was removed or lost its end in a crash of the machine, it is cut back to
    what is whole, and a warning says how much is missing.

    Args:
        path: of the file, which is created if it does not exist.
    """

    file: AppendFile

    def __init__(self, path: Path) -> None:
        self.path = path
        #: What precedes the metrics of evaluations during training, and of the result.
        self.evaluation_tag, self.result_tag = "val", "test"

    def __str__(self) -> str:
        return str(self.path)

    def started(self, record: Record, step: int) -> None:
        self.evaluation_tag, self.result_tag = record.evaluation_tag, record.result_tag

    def closed(self) -> None:
        if not hasattr(self, "file"):
            return
        try:
            self.file.close()
        finally:
            if self.file.has_failed:
                with suppress(OSError):  # of the entry that failed, a part may have been written
                    os.truncate(self.path, self.find_whole(self.path.read_bytes())[0])

    def state_dict(self) -> dict[str, int]:
        return {"size": self.file.sync()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.closed()  # if another state was restored before
        self.file = AppendFile(self.path)
        written = state.get("size", 0)
        if self.file.size() < written:
            kept, step = self.find_whole(self.path.read_bytes())
            what = (
                f"{self.path}: {written - kept} of the {written} bytes that had been written are missing; nothing is "
                f"left from after step {step} to where the run is continued"
            )
            logger.warning("%s", what, extra=NOTED)
            written = kept
        self.file.cut(written)

    @abstractmethod
    def find_whole(self, content: bytes) -> tuple[int, int]:
        """Return the number of bytes before the first entry that is torn, and the step of the last one before it."""
