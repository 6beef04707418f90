"""Every error that mtlrun raises on purpose.

MtlrunError                 anything below; `exit_code` is what the command line ends with
├── ConfigError        (2)  the request cannot work: unknown key, wrong value, impossible combination
├── DataError          (2)  the data cannot be used: absent, unreadable, labels out of range
│   ├── RecordError    (2)  a file is not the record of a run, or not that of the run that is asked for
│   └── WorkerDiedError     a process that loads samples has died
├── RunInUseError      (2)  another process is training this very run
├── LockLostError      (1)  the lock of the run folder was removed, and another process may be training the run
├── CheckpointError    (2)  a checkpoint cannot be used: of another version, of other code, damaged
├── OutOfMemoryError   (1)  what is to be made does not fit into the memory that is free at the moment
├── StorageError       (1)  a file of the run cannot be written: the disk is full, a quota is used up, ...
├── FallbackError      (1)  a weighting's solver fails too often for the method to be what it is called
├── DivergedError      (3)  a loss or a gradient is no longer finite, or a loss below what the method allows
├── SweepError         (1)  runs of a sweep have failed or diverged
└── RunInterruptedError (129, 130, 143)  SIGHUP, SIGINT or SIGTERM; the run was checkpointed and can be continued
"""

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

#: What a terminal sends when it is closed, what Ctrl-C sends, and what a cluster sends to a canceled job.
STOP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

_LISTED = 5  # problems of one kind, where there may be thousands


class MtlrunError(Exception):
    """Base of all errors whose message is meant for the user and needs no traceback."""

    exit_code = 1


class ConfigError(MtlrunError):
    """One or several problems of a config, each a sentence that starts with the key it is about.

    Args:
        problems: the sentences.
        way_on: what to do about all of them, if there is anything.
    """

    exit_code = 2

    def __init__(self, problems: str | Iterable[str], way_on: str = "") -> None:
        self.problems, self.way_on = [problems] if isinstance(problems, str) else list(problems), way_on
        super().__init__("\n".join(self.problems))


class DataError(MtlrunError):
    """The dataset is absent, unreadable or wrong."""

    exit_code = 2


class RecordError(DataError):
    """A file is not what the record of a run is, or not that of the run that is asked for."""


class WorkerDiedError(DataError):
    """A process that loads samples has died; the training process is between two steps."""


def list_problems(problems: Sequence[str], what: str) -> str:
    """Return problems of one kind as one message: the first ones, a line each, and how many there are.

    Args:
        problems: one or more.
        what: of the kind, such as `images cannot be used`.
    """
    if len(problems) == 1:
        return problems[0]
    shown = [f"\n  - {problem}" for problem in problems[:_LISTED]]
    more = f"\n  - and {len(problems) - _LISTED:,} more" if len(problems) > _LISTED else ""
    return f"{len(problems):,} {what}:{''.join(shown)}{more}"


class RunInUseError(MtlrunError):
    """The run folder is locked by another process."""

    exit_code = 2


class CheckpointError(MtlrunError):
    """A checkpoint cannot be used; nothing was trained."""

    exit_code = 2


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is not what was written there, or cannot be read; the one before it may be."""


class OutOfMemoryError(MtlrunError):
    """What is to be made does not fit into the memory that is free at the moment; a step that was begun is not made."""


class StorageError(MtlrunError):
    """A file of the run cannot be written or removed: the disk is full or read-only, a quota is used up, ...

    Whatever was complete on disk still is: once the cause is gone, the run can be continued.

    Args:
        path: of the file or folder.
        error: of the operating system.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be written: {error.strerror or error}")


class LockLostError(MtlrunError):
    """The lock of the run folder is no longer this process's; nothing more is written into the folder.

    Args:
        path: of the lock's file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was removed or replaced during training, so another process may be training this run; stopped, "
            "and nothing more is written; the same command goes on from the last checkpoint"
        )


class FallbackError(MtlrunError):
    """A weighting has fallen back to something else in too many steps."""


class DivergedError(MtlrunError):
    """A loss or gradient is one that no update can be made of, such as NaN; raised before the optimizer step."""

    exit_code = 3

    def __init__(self, message: str, step: int, task: str | None) -> None:
        super().__init__(message)
        self.step = step
        self.task = task


class SweepError(MtlrunError):
    """Runs of a sweep have failed or diverged; all others were trained.

    Args:
        failed, diverged, total: numbers of runs.
    """

    def __init__(self, failed: int, diverged: int, total: int) -> None:
        lines = []
        if failed:
            lines.append(f"{failed} of {total} runs failed; the same command tries them again, and nothing else")
        if diverged:
            lines.append(f"{diverged} of {total} runs diverged; hydra.launcher.retry=all tries those again")
        super().__init__("; ".join(lines))


class RunInterruptedError(MtlrunError):
    """The process was asked to stop; the state is on disk."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number
