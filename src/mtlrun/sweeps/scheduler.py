"""The queue: which run is started when, what is tried again, and how a sweep is stopped."""

import signal
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mtlrun.errors import STOP_SIGNALS, ConfigError, DivergedError, RunInUseError
from mtlrun.records.folder import LOG
from mtlrun.records.heartbeat import Heartbeat, state_of
from mtlrun.sweeps.jobs import ENDED, Job, Outcome
from mtlrun.sweeps.processes import LOST

#: Seconds between two looks at signals, and at the runs that another process trains.
_PAUSE, _PAUSE_ELSEWHERE = 0.5, 2.0
#: How often a run is started if its process was lost, each time from its last checkpoint.
_MOST_ATTEMPTS = 5
#: Lines of what a process printed that say why it failed.
_LINES = 15
#: Exit codes of runs that were asked to stop: with a checkpoint, or before there was anything to save.
_STOPPED = {code for number in STOP_SIGNALS for code in (128 + number, -number)}


class Executor(Protocol):
    """Something that runs jobs."""

    #: True if jobs go on when this process has ended.
    survives: bool

    def has_room(self, job: Job) -> bool:
        """Return True if the job can be started now."""

    def start(self, job: Job) -> None:
        """Start a job, for which there must be room."""

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Wait until a job ends, at most for some seconds; return those that ended."""

    def stop(self, job: Job, *, at_once: bool) -> None:
        """Ask a job to stop after its step, or kill it."""

    def shares(self, job: Job) -> bool:
        """Return True if the job shares what it runs on with others."""

    def close(self) -> None:
        """End what is left."""


class Supply(Protocol):
    """Something that has further jobs, each made when there is room for it, by what has become of others."""

    #: A job that needs as much room as any other, and the number of all jobs that there will be.
    typical: Job
    total: int

    def next_job(self) -> Job | None:
        """Return a further job, which may have ended already; None if there will be no more."""

    def ended(self, job: Job) -> None:
        """A job has ended, and may be changed to `failed` if it has no result that is of use."""

    def find_hopeless(self, running: Sequence[Job]) -> Sequence[Job]:
        """Return the running jobs to stop, since others do better."""


class View(Protocol):
    """Something that shows a sweep."""

    def begin(self, jobs: Sequence[Job], total: int) -> None:
        """The sweep begins; some jobs may be done already, and others follow until there are `total`."""

    def started(self, job: Job) -> None:
        """A job was started."""

    def ended(self, job: Job) -> None:
        """A job came to an end, or goes back to the queue if it is `waiting`."""

    def tick(self) -> None:
        """Nothing happened, but time passed."""

    def stopping(self, number: int) -> None:
        """The sweep was asked to stop by this signal; what runs saves a checkpoint."""

    def end(self) -> None:
        """The sweep has ended."""


class Scheduler:
    """The queue of a sweep.

    Args:
        jobs: in the order in which they are to run; those of the supply are added.
        executor: that runs them.
        view: that shows them.
        stop_signal: returns the number of a signal that asked to stop, None before.
        supply: of further jobs, if there are any.
        find_hopeless: returns those of the running jobs that are to be stopped; None for what the supply finds.
    """

    def __init__(
        self,
        jobs: list[Job],
        executor: Executor,
        view: View,
        stop_signal: Callable[[], int | None],
        supply: Supply | None = None,
        find_hopeless: Callable[[Sequence[Job]], Sequence[Job]] | None = None,
    ) -> None:
        self._find_hopeless = find_hopeless or (supply.find_hopeless if supply is not None else lambda running: ())
        self._jobs, self._executor, self._view, self._stop_signal = jobs, executor, view, stop_signal
        self._supply, self._is_exhausted = supply, supply is None
        self._asked_to_stop = False
        self._look_again_at = 0.0

    def run(self) -> None:
        """Run all jobs that have not ended, and return when all have, or when what ran has stopped after a signal.

        Raises:
            KeyboardInterrupt: a second signal; what ran is killed.
        """
        self._view.begin(self._jobs, len(self._jobs) if self._supply is None else self._supply.total)
        try:
            while True:
                number = self._stop_signal()
                if number == signal.SIGHUP and self._executor.survives:
                    return  # only the terminal is gone
                if number is not None and not self._asked_to_stop:
                    self._asked_to_stop = True
                    self._view.stopping(number)
                    for job in self._running():
                        self._executor.stop(job, at_once=False)
                if number is None:
                    self._start_what_fits()
                running = self._running()
                if not running and (number is not None or self._is_done()):
                    return
                for job, outcome in self._executor.wait(_PAUSE):
                    self._take(job, outcome)
                self._give_up_hopeless()
                self._view.tick()
        except KeyboardInterrupt:
            for job in self._running():
                self._executor.stop(job, at_once=True)
            raise
        finally:
            self._view.end()

    def _running(self) -> list[Job]:
        return [job for job in self._jobs if job.state == "running"]

    def _is_done(self) -> bool:
        return self._is_exhausted and all(job.state in ENDED for job in self._jobs)

    def _start_what_fits(self) -> None:
        for job in self._startable():
            if job.state != "running" and self._executor.has_room(job):  # it may have been started with another
                self._start(job)
        while self._supply is not None and not self._is_exhausted and self._executor.has_room(self._supply.typical):
            further = self._supply.next_job()
            if further is None:
                self._is_exhausted = True
                return
            self._jobs.append(further)
            if further.state in ENDED:
                self._end(further)
            else:
                self._start(further)

    def _start(self, job: Job) -> None:
        job.partners = [other for other in job.together if other is not job and other.state == "waiting"]
        for each in (job, *job.partners):
            each.state, each.started = "running", time.monotonic()
            each.attempts += 1
        self._executor.start(job)
        for each in (job, *job.partners):
            if not each.was_elsewhere:
                self._view.started(each)

    def _give_up_hopeless(self) -> None:
        for job in self._find_hopeless([job for job in self._running() if not job.given_up]):
            job.given_up = True
            self._executor.stop(job, at_once=False)

    def _end(self, job: Job) -> None:
        """Report the end of a job."""
        if self._supply is not None and job.state in ENDED:
            self._supply.ended(job)
        self._view.ended(job)

    def _startable(self) -> list[Job]:
        """Return the jobs to start, what nobody trains before what another process has begun and seems to have left."""
        waiting = [job for job in self._jobs if job.state == "waiting"]
        if waiting or time.monotonic() < self._look_again_at:
            return waiting
        self._look_again_at = time.monotonic() + _PAUSE_ELSEWHERE
        return [job for job in self._jobs if job.state == "elsewhere" and not _is_alive(job)]

    def _take(self, job: Job, outcome: Outcome) -> None:
        """Note what has become of a job."""
        job.seconds += time.monotonic() - job.started
        job.outcome = outcome
        job.output = "\n".join(outcome.output.strip().splitlines()[-_LINES:])
        if outcome.code == 0:
            job.state, job.error = "completed", None
        elif outcome.kind == RunInUseError.__name__:
            # Another sweep over the same runs, or what is left of a killed one and is about to stop.
            job.state, job.error = "elsewhere", outcome.error
            if job.was_elsewhere:
                return
            job.was_elsewhere = True
        elif outcome.kind == DivergedError.__name__:
            job.state, job.error = "diverged", outcome.error
        elif self._supply is not None and outcome.kind == ConfigError.__name__:
            # What a supply adds was not checked before; it would be refused again.
            job.state, job.error = "refused", explain(outcome)
        elif job.given_up and outcome.code in _STOPPED:
            job.state = "pruned"
        elif self._asked_to_stop and outcome.code in _STOPPED:
            job.state, job.error = "interrupted", None
        elif outcome.kind == LOST and job.attempts < _MOST_ATTEMPTS:
            job.state, job.error = (
                "waiting",
                f"{outcome.error or 'the process that starts runs was killed'}; it goes on",
            )
        elif _is_out_of_memory(outcome) and self._executor.shares(job) and not job.alone:
            job.state, job.alone, job.error = "waiting", True, f"{explain(outcome)}; tried once more, alone"
        else:
            job.state, job.error = "failed", explain(outcome)
        self._end(job)


def explain(outcome: Outcome) -> str:
    """Return why a process ended early, in a line."""
    if outcome.error:
        return " ".join(outcome.error.split())
    if outcome.code < 0:
        name = signal.Signals(-outcome.code).name
        reasons = {"SIGKILL": "killed (SIGKILL), perhaps for want of memory", "SIGSEGV": "segmentation fault (SIGSEGV)"}
        return reasons.get(name, f"ended by {name}")
    last = outcome.output.strip().splitlines()
    return last[-1] if last else f"ended with exit code {outcome.code}; {LOG} may have more"


def _is_alive(job: Job) -> bool:
    """Return True if the run seems to be trained by another process."""
    beat = Heartbeat.read(job.folder)
    return beat is not None and state_of(None, beat) == "running"


def _is_out_of_memory(outcome: Outcome) -> bool:
    return outcome.kind in ("OutOfMemoryError", "MemoryError") or outcome.code == -signal.SIGKILL
