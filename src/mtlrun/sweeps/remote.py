"""Runs on another machine: what a process of a cluster does to train them, and what it reports.

Such a process is a small sweep: it has the queue and the places that this machine has, on the GPUs and cores that the
cluster gave it, so limits, packing and isolation of runs are the same everywhere. All machines see the same disk.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mtlrun.errors import MtlrunError
from mtlrun.records.folder import open_atomically
from mtlrun.records.record import Record
from mtlrun.records.submissions import report_file
from mtlrun.sweeps.jobs import Job, Outcome
from mtlrun.sweeps.local import LocalExecutor, number_that_fits
from mtlrun.sweeps.processes import LOST
from mtlrun.sweeps.scheduler import Scheduler

Report = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a process elsewhere has to know besides the configs of its runs.

    Args:
        folder: the current folder of the sweep, which relative paths start at.
        path: Python's search path.
        since: when the sweep began, seconds since 1970.
        gpus: True if the process was promised a GPU.
        places: runs side by side without a GPU.
        runs_per_gpu, time_limit, memory_limit: as of the launcher.
    """

    folder: str
    path: Sequence[str]
    since: float
    gpus: bool
    places: int = 1
    runs_per_gpu: int = 1
    time_limit: float | None = None
    memory_limit: float | None = None

    @classmethod
    def here(cls, *, gpus: bool, **options: Any) -> "Setting":
        """Return the setting of this process."""
        return cls(os.getcwd(), tuple(sys.path), time.time(), gpus, **options)


def request(job: Job) -> dict[str, Any]:
    """Return what a process elsewhere has to know of a job."""
    return {"number": job.number, "config": dict(job.config), "overrides": list(job.overrides)}


def given_up_file(reports: Path, job: Job) -> Path:
    """Return the file whose presence asks a pack to stop one of its runs."""
    return reports / f"{job.run_id}.stop"


def outcome_of(report: Report) -> Outcome:
    """Return the outcome that a report describes."""
    return Outcome(**report["outcome"])


class Worker:
    """What trains runs on a machine of a cluster.

    Args:
        setting: of the sweep.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._executor: LocalExecutor | None = None
        self._stopped: int | None = None

    def train(
        self,
        requests: Sequence[Mapping[str, Any]],
        report: Callable[[Job, Report], None] | None = None,
        stop_signal: Callable[[], int | None] | None = None,
        find_hopeless: Callable[[Sequence[Job]], Sequence[Job]] | None = None,
    ) -> list[Report]:
        """Train runs, and return a report on each that has come to an end, in no order.

        Args:
            requests: what `request` returned for each.
            report: is called as soon as a run has come to an end.
            stop_signal: returns the number of a signal that asked to stop, None before; `stop` does the same.
            find_hopeless: returns those of the running runs that are to be stopped.

        Raises:
            MtlrunError: this machine does not see the folder of the sweep.
        """
        setting = self._setting
        try:
            os.chdir(setting.folder)
        except OSError as error:
            raise MtlrunError(
                f"{setting.folder}: {error.strerror} on {os.uname().nodename}; "
                "start the sweep in a folder that all machines see"
            ) from None
        sys.path[:] = [*sys.path, *(entry for entry in setting.path if entry not in sys.path)]
        jobs = [Job(entry["number"], self._continued(entry["config"]), entry["overrides"]) for entry in requests]
        reporter = _Reporter(report)
        if self._executor is None:
            self._executor = self._make_executor(jobs)
        if self._setting.gpus and not self._executor.processes.gpus:
            for job in jobs:
                job.state, job.outcome = "failed", Outcome(1, self._describe_lack(), "NoGPU")
                reporter.ended(job)
            return reporter.reports
        stop_signal = stop_signal or (lambda: self._stopped)
        Scheduler(jobs, self._executor, reporter, stop_signal, find_hopeless=find_hopeless).run()
        return reporter.reports

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Let runs save a checkpoint and end, and start no other; may be called from another thread."""
        self._stopped = number

    def close(self) -> None:
        """End what is left."""
        if self._executor is not None:
            self._executor.close()

    def _make_executor(self, jobs: Sequence[Job]) -> LocalExecutor:
        setting = self._setting
        # A cluster may have sent SIGTERM to all processes of a job, and a second one would end runs at once.
        stop_by = signal.SIGHUP
        limits: dict[str, Any] = {"time_limit": setting.time_limit, "memory_limit": setting.memory_limit}
        if setting.gpus:
            return LocalExecutor(jobs, runs_per_gpu=setting.runs_per_gpu, stop_by=stop_by, **limits)
        # The cluster may have given less memory than so many runs need.
        places = number_that_fits(1, setting.places)
        return LocalExecutor(jobs, workers=places, stop_by=stop_by, **limits)

    def _describe_lack(self) -> str:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return f"the cluster gave a GPU and PyTorch sees none on {os.uname().nodename} (CUDA_VISIBLE_DEVICES={visible})"

    def _continued(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a config that continues a run which this sweep has begun anew, and does not begin it anew again."""
        if not config["runtime"].get("rerun"):
            return config
        job = Job(0, config, ())
        try:
            record = Record.read(job.folder)
        except MtlrunError:
            return config
        if record is None or datetime.fromisoformat(record.started).timestamp() < int(self._setting.since):
            return config
        return {**config, "runtime": {**config["runtime"], "rerun": False}}


class Pack:
    """Several runs, trained by one job of a cluster, in the form in which submitit calls and requeues it.

    A signal by which the cluster takes the machine back lets the runs save a checkpoint. Then submitit's handler of
    that signal requeues the job, and the runs continue; after SIGTERM alone it is the cluster that may requeue it.

    Args:
        setting: of the sweep.
        requests: what `request` returned for each run.
        reports: the folder for reports, `<run>.json`.
    """

    def __init__(self, setting: Setting, requests: Sequence[Mapping[str, Any]], reports: Path) -> None:
        self._setting, self._requests, self._reports = setting, list(requests), reports

    def __call__(self) -> None:
        """Train the runs, and leave a report of each that has come to an end.

        Raises:
            SystemExit: after a signal.
        """
        received: list[int] = []
        earlier: dict[int, Any] = {}

        def note(number: int, _: Any) -> None:
            if number in received:
                raise KeyboardInterrupt
            received.append(number)

        for which in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            handler = signal.getsignal(which)
            if which == signal.SIGTERM or callable(handler):  # submitit has set its own for what asks to requeue
                earlier[which] = handler
                signal.signal(which, note)
        worker = Worker(self._setting)
        try:
            worker.train(self._requests, self._report, lambda: received[0] if received else None, self._find_given_up)
        finally:
            worker.close()
            for number, handler in earlier.items():
                signal.signal(number, handler)
        for number in received:
            if number != signal.SIGTERM and self._requests:
                earlier[number](number, None)
        if received and self._requests:
            sys.exit(128 + received[0])

    def checkpoint(self) -> Any:
        """Return what is left to do, when the job is requeued."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Pack(self._setting, self._requests, self._reports))

    def _find_given_up(self, running: Sequence[Job]) -> list[Job]:
        return [job for job in running if given_up_file(self._reports, job).exists()]

    def _report(self, job: Job, report: Report) -> None:
        with open_atomically(report_file(self._reports, job.run_id)) as file:
            file.write(json.dumps(report).encode())
        self._requests = [entry for entry in self._requests if entry["number"] != job.number]


class _Reporter:
    """A view of a sweep that reports each run that has come to an end.

    Args:
        report: is called with the job and the report.
    """

    def __init__(self, report: Callable[[Job, Report], None] | None) -> None:
        self._report = report
        self.reports: list[Report] = []

    def begin(self, jobs: Sequence[Job], total: int) -> None:
        pass

    def started(self, job: Job) -> None:
        pass

    def ended(self, job: Job) -> None:
        if job.outcome is None or job.state not in ("completed", "failed", "diverged", "pruned"):
            return
        report = {"number": job.number, "seconds": job.seconds, "outcome": asdict(job.outcome)}
        self.reports.append(report)
        if self._report is not None:
            self._report(job, report)

    def tick(self) -> None:
        pass

    def stopping(self, number: int) -> None:
        pass

    def end(self) -> None:
        pass


def lost(reason: str) -> Outcome:
    """Return the outcome of a run that a cluster ended, which is no fault of the run."""
    return Outcome(128 + signal.SIGTERM, reason, LOST)
