"""Observers: the interface of what logs a run, and the append-only file that two of them write."""

import logging
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from mtlrun.records.folder import storing, sync_folder
from mtlrun.records.record import Record

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, float]]


class Observer:
    """Base of all observers: notified of what happens in a run; every method is optional.

    An observer that writes files gives their sizes as its state, and cuts them back to these sizes when a run is
    continued, so that nothing is logged twice.
    """

    def started(self, record: Record, step: int) -> None:
        """The run starts, or is continued, at `step`. Called after the state has been restored.

        Args:
            record: all that is known of the run when it starts.
            step: number of steps already made.
        """

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """`trainer.log_every` more steps were made; `values` are means over them, {TensorBoard tag: mean}."""

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        """The validation split was evaluated; `selected`: this is now the best checkpoint.

        Under the legacy protocol (`Record.protocol`) it was the test split, and `selected` has no meaning.
        """

    def pictured(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """{task: image [3, height, width] of bytes} of some validation samples, right after `validated`."""

    def tested(self, step: int, metrics: Metrics) -> None:
        """The result: of the selected checkpoint on the test split, or the means over the last evaluations."""

    def closed(self) -> None:
        """The run ended, in whatever way."""

    def state_dict(self) -> dict[str, int]:
        """Write everything to the disk and return the state that a continued run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the state, or start anew if it is empty. Called before `started`."""


class Observers:
    """Several observers, notified one after the other."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def started(self, record: Record, step: int) -> None:
        for observer in self._observers:
            observer.started(record, step)

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        for observer in self._observers:
            observer.trained(step, epoch, values)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        for observer in self._observers:
            observer.validated(step, epoch, metrics, selected)

    def pictured(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        for observer in self._observers:
            observer.pictured(step, pictures)

    def tested(self, step: int, metrics: Metrics) -> None:
        for observer in self._observers:
            observer.tested(step, metrics)

    def closed(self) -> None:
        """Close each one, whatever happens to the others; the first error is raised afterwards."""
        first: Exception | None = None
        for observer in self._observers:
            try:
                observer.closed()
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close all; an error of the block is not hidden by one that closing raises."""
        try:
            self.closed()
        except Exception as second:
            if error is None:
                raise
            logger.warning("%s", second)

    def start_anew(self) -> None:
        for observer in self._observers:
            observer.load_state_dict({})

    def state_dict(self) -> list[dict[str, int]]:
        return [observer.state_dict() for observer in self._observers]

    def load_state_dict(self, states: Sequence[Mapping[str, int]]) -> None:
        sizes = [size for state in states for size in state.values()]
        if not all(type(size) is int and size >= 0 for size in sizes) or len(states) != len(self._observers):
            raise ValueError(f"observers must have {len(self._observers)} states of sizes, found {states}")
        for observer, state in zip(self._observers, states, strict=True):
            observer.load_state_dict(state)


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

    def write(self, content: bytes) -> None:
        """Append `content`."""
        with storing(self.path):
            self.file.write(content)

    def flush(self) -> None:
        """Hand what was written to the operating system, so that readers of the file see it."""
        with storing(self.path):
            self.file.flush()

    def sync(self) -> int:
        """Write the content to the disk and return the size of the file."""
        with storing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
        if not self._name_is_synced:
            sync_folder(self.path.parent)
            self._name_is_synced = True
        return self.size()

    def size(self) -> int:
        """Return the number of bytes, written to the disk or not."""
        return self.file.tell()

    def cut(self, size: int) -> None:
        """Remove everything after the first `size` bytes. A file that is shorter stays as it is."""
        with storing(self.path):
            self.file.truncate(min(size, self.file.seek(0, os.SEEK_END)))
            self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        with storing(self.path):
            self.file.close()


class FileObserver(Observer):
    """Base of the observers that write a file, whose state is its size: a continued run cuts it back to that.

    Where the file has become shorter, since it was removed or lost its end in a crash of the machine, it is cut back to
    what is whole, and a warning says how much is missing.

    Args:
        path: of the file, which is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.file = AppendFile(path)
        #: What precedes the metrics of evaluations during training, and of the result.
        self.evaluation_tag, self.result_tag = "val", "test"

    def started(self, record: Record, step: int) -> None:
        self.evaluation_tag, self.result_tag = record.evaluation_tag, record.result_tag

    def closed(self) -> None:
        self.file.close()

    def state_dict(self) -> dict[str, int]:
        return {"size": self.file.sync()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        written = state.get("size", 0)
        if self.file.size() < written:
            kept, step = self.find_whole(self.file.path.read_bytes())
            logger.warning(
                "%s: %d of the %d bytes that had been written are missing; nothing is left from after step %d to where "
                "the run is continued",
                self.file.path,
                written - kept,
                written,
                step,
            )
            written = kept
        self.file.cut(written)

    @abstractmethod
    def find_whole(self, content: bytes) -> tuple[int, int]:
        """Return the number of bytes before the first entry that is torn, and the step of the last one before it."""
