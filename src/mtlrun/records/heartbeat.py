"""The heartbeat: a small file that a running run renews, from which others see that it is alive, and how far it is."""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_type_hints

from mtlrun.records.folder import HEARTBEAT
from mtlrun.records.json_types import read_as
from mtlrun.records.lock import process_exists
from mtlrun.records.record import Record, Status

#: Seconds between two beats, and after how many without one a run on another machine is called silent.
INTERVAL, SILENT_AFTER = 5.0, 60.0
_LARGEST = 2.0**53  # of the numbers of a heartbeat that is not damaged

RunState = Status | Literal["killed", "silent"]


@dataclass
class Heartbeat:
    """What a running run tells those who watch it.

    Args:
        host, pid: the machine and the process.
        at: time of this beat, seconds since 1970 by the clock of that machine.
        first_step: the step at which the process began, if it continued the run.
        seconds: since it began there; they do not follow a clock that is set.
        step, total_steps, epoch: how far it is.
        metrics: of the newest evaluation, {task: {metric: value}}.
    """

    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    at: float = field(default_factory=time.time)
    first_step: int = 0
    seconds: float = 0.0
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the file; failing to do so is no reason to end a run."""
        temporary = folder / f"{HEARTBEAT}.tmp"
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(self)))
            os.replace(temporary, folder / HEARTBEAT)

    @classmethod
    def read(cls, folder: Path) -> "Heartbeat | None":
        """Return the newest heartbeat of a run, None if there is none that can be read."""
        try:
            content = json.loads((folder / HEARTBEAT).read_bytes())
            hints = get_type_hints(cls)
            beat = cls(**{key: read_as(hints[key], value) for key, value in content.items() if key in hints})
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        numbers = (beat.at, beat.seconds, beat.pid, beat.first_step, beat.step, beat.total_steps, beat.epoch)
        return beat if all(abs(number) < _LARGEST for number in numbers) else None

    @property
    def age(self) -> float:
        """Seconds since the beat."""
        return max(time.time() - self.at, 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the last step, None before the first one."""
        made = self.step - self.first_step
        if made < 1:
            return None
        return max(self.seconds / made * (self.total_steps - self.step) - self.age, 0.0)


def state_of(record: Record | None, beat: Heartbeat | None) -> RunState:
    """Return the state of a run: that of its record, or if this is `running`, whether it still is.

    `killed`: its process is gone. `silent`: it was on another machine, or has stopped, and its last beat is old. The
    lock of its folder is left alone: to try it is to hold it for a moment, in which a run that starts would meet it.
    """
    if record is not None and record.status != "running":
        return record.status
    if beat is None or (beat.host == platform.node() and not process_exists(beat.pid)):
        return "killed"
    return "running" if beat.age < SILENT_AFTER else "silent"


@contextmanager
def repeating(write: Callable[[], None], name: str) -> Iterator[None]:
    """Call `write` at once, and every `INTERVAL` seconds from a thread of this name until the block ends."""
    ended = threading.Event()

    def keep_writing() -> None:
        while not ended.wait(INTERVAL):
            write()

    write()
    thread = threading.Thread(target=keep_writing, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def remove_heartbeat(folder: Path) -> None:
    """Remove the file, if there is one."""
    with suppress(OSError):
        (folder / HEARTBEAT).unlink(missing_ok=True)
