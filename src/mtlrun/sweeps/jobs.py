"""Jobs: the runs of a sweep, what has become of each, and what a finished process reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtlrun.records.identity import run_folder, run_id

State = Literal[
    "waiting", "running", "elsewhere", "completed", "diverged", "failed", "interrupted", "refused", "pruned"
]
#: The states in which there is nothing left to do for a job.
ENDED: frozenset[State] = frozenset({"completed", "pruned", "diverged", "failed", "interrupted", "refused"})


@dataclass(frozen=True)
class Place:
    """Where a job runs: one of several that do not get in each other's way.

    Args:
        number: of the place, from 0.
        gpu: the GPU that the run sees, as in CUDA_VISIBLE_DEVICES; None for none, or whatever is visible.
    """

    number: int
    gpu: str | None = None


@dataclass
class Outcome:
    """What is known when the process of a run has ended.

    Args:
        code: its exit code; negative for a signal, as in `subprocess`.
        error: why it ended early, in a line; None if it did not, or if nobody knows.
        kind: the name of the exception's class, "" if there is none.
        problems: of a config that was refused, one sentence each.
        result: of a probe.
        output: the last lines that it printed, on standard output and error.
        others: the same for each of the runs that it trained together with the first.
    """

    code: int
    error: str | None = None
    kind: str = ""
    problems: Sequence[str] = ()
    output: str = ""
    result: dict[str, Any] | None = None
    others: Sequence["Outcome"] = ()


@dataclass
class Job:
    """One run of a sweep.

    Args:
        number: of the run in the sweep, from 1.
        config: resolved; nothing that is edited later can change it.
        overrides: what the user would type to get this run alone.
    """

    number: int
    config: Mapping[str, Any]
    overrides: Sequence[str]
    state: State = "waiting"
    #: True if it was finished before the sweep began.
    was_done: bool = False
    #: Try it without any other run beside it.
    alone: bool = False
    #: True if a search has asked it to stop, since others do better.
    given_up: bool = False
    attempts: int = 0
    #: True if another process was found to train this run.
    was_elsewhere: bool = False
    place: Place | None = None
    #: `time.monotonic()` when its process was started, and how long it took in all attempts.
    started: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    output: str = ""
    #: Of the newest attempt that has ended.
    outcome: Outcome | None = None
    #: The jobs that differ from this one in their seed and may be trained in its process; it is one of them.
    together: Sequence["Job"] = field(default=(), compare=False, repr=False)
    #: Those of them that were started in its process.
    partners: Sequence["Job"] = field(default=(), compare=False, repr=False)
    run_id: str = field(init=False)
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.run_id, self.folder = run_id(self.config), run_folder(self.config)
