"""Runs on a Slurm cluster, through submitit: packs of runs, each a job of an array."""

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mtlrun.errors import ConfigError, MtlrunError
from mtlrun.records.lock import Holder
from mtlrun.records.record import Record
from mtlrun.records.submissions import FOLDER, SEEN, Submission, report_file
from mtlrun.sweeps.announcement import is_attended
from mtlrun.sweeps.jobs import Job, Outcome, Place
from mtlrun.sweeps.local import modules_of, threads_of, want_gpu
from mtlrun.sweeps.processes import Processes
from mtlrun.sweeps.remote import Pack, Setting, given_up_file, lost, outcome_of, request
from mtlrun.sweeps.slurm_options import SlurmOptions

#: Seconds between two looks at the state of jobs, and until a report is given up after its job has ended: a disk of
#: several machines may show it late.
_POLL, _GRACE = 2.0, 20.0
#: Seconds that a job gets to end after its last report.
_LAST_FILE = 10.0
#: Seconds before the end of a job's time at which its runs are asked to save a checkpoint, and how often it goes on.
_NOTICE, _MOST_REQUEUES = 120, 20


@dataclass
class _Submitted:
    """A pack that was submitted.

    Args:
        job: submitit's.
        folder: where its reports are.
        runs: that it trains.
        submission: that names it, if another process has submitted it.
        ended_at: `time.monotonic()` when it was found to have ended.
        asked: whether it was asked to stop (False), and whether at once (True).
    """

    job: Any
    folder: Path
    runs: Sequence[str]
    submission: Submission | None = None
    ended_at: float | None = None
    asked: set[bool] = field(default_factory=set)


class SlurmExecutor:
    """Packs of runs, each a job of a Slurm array, which go on when this process has ended.

    What was submitted is noted in the folder of the study, so that the same command waits for runs that are queued or
    run, and submits none of them again.

    Args:
        jobs: that will be run.
        options: of the cluster.
        processes: on this machine, to check runs in; None to start some when they are needed.
        workers: Slurm jobs side by side, None for as many as the cluster allows.
        runs_per_gpu, time_limit, memory_limit: as of the launcher, within each Slurm job.

    Raises:
        ConfigError: submitit is not installed, this machine has no Slurm, or an option is impossible.
    """

    survives = True

    def __init__(
        self,
        jobs: Sequence[Job],
        options: SlurmOptions,
        processes: Processes | None = None,
        *,
        workers: int | None = None,
        runs_per_gpu: int = 1,
        time_limit: float | None = None,
        memory_limit: float | None = None,
    ) -> None:
        options.check(runs_per_gpu)
        self._jobs, self._options, self._workers, self._processes = list(jobs), options, workers, processes
        on_slurm = options.cluster == "slurm"
        self._gpus = options.gpus if options.gpus is not None else int(on_slurm and want_gpu(jobs))
        side_by_side = max(self._gpus * runs_per_gpu, 1)
        per_run = max(threads_of(job.config) + int(job.config["runtime"]["num_workers"]) for job in jobs)
        self._cpus = options.cpus or side_by_side * per_run
        self._setting = Setting.here(
            gpus=self._gpus > 0,
            places=max(self._cpus // per_run, 1),
            runs_per_gpu=runs_per_gpu,
            time_limit=time_limit,
            memory_limit=memory_limit,
        )
        packs = workers or min(math.ceil(len(jobs) / options.runs_per_job), options.array_size)
        in_pack = min(self._gpus * runs_per_gpu or self._setting.places, options.runs_per_job)
        self.places = [Place(number) for number in range(packs * in_pack)]
        self._gathered: list[Job] = []
        self._running: dict[str, Job] = {}
        self._made: Path | None = None
        self._look_at = 0.0
        self._stopping = self._holds_back = False
        self._given_up: list[Job] = []
        self._packs: list[_Submitted] = []
        #: The pack that each submitted run is in.
        self._where: dict[str, _Submitted] = {}
        for study in self._studies():
            for pack in self._find_submitted(study):
                self._add(pack)

    @cached_property
    def processes(self) -> Processes:
        """Processes on this machine, to check runs in."""
        processes = self._processes or Processes()
        processes.load(modules_of(job.config for job in self._jobs))
        return processes

    def has_room(self, job: Job) -> bool:
        """Return True if the job can be submitted, or was submitted by an earlier sweep."""
        if job.run_id in self._where:
            return True
        packs = len(self._gathered) // self._options.runs_per_job + 1
        in_flight = sum(pack.ended_at is None for pack in self._packs)
        # The limit of an array is Slurm's to hold; a later one fits beside what is left of those before.
        if self._options.cluster == "local":
            return in_flight + packs <= (self._workers or 1)
        if self._workers is None or (not in_flight and not self._holds_back):
            return in_flight + packs <= self._options.array_size
        return in_flight + packs <= min(self._workers, self._options.array_size)

    def hold_back(self) -> None:
        """Submit no more from now on than what runs side by side.

        Raises:
            ConfigError: nobody has said how much that is.
        """
        if self._workers is None and self._options.cluster == "slurm":
            raise ConfigError(
                "hydra.launcher.workers is missing: the number of Slurm jobs side by side; without it, all trials of "
                "the search would be submitted before any has a result"
            )
        self._holds_back = True

    def start(self, job: Job) -> None:
        """Take a job; the next `wait` submits it, together with others that were taken."""
        job.started = time.monotonic()
        self._running[job.run_id] = job
        if job.run_id not in self._where:
            self._gathered.append(job)

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Wait until a job ends, at most for some seconds; return those that ended."""
        self._submit()
        until = time.monotonic() + seconds
        while not (ended := self._collect()) and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))
        return ended

    def stop(self, job: Job, *, at_once: bool) -> None:
        """Cancel the Slurm job that has the run: Slurm sends SIGTERM, after which it saves a checkpoint, or SIGKILL.

        One that was given up is stopped by its Slurm job, which goes on with the others of the pack.
        """
        pack = self._where.get(job.run_id)
        if job.given_up and not self._stopping and not at_once and job not in self._given_up:
            self._given_up.append(job)
            if pack is not None:
                given_up_file(pack.folder, job).touch()
            return
        self._stopping = True
        if pack is None or pack.ended_at is not None or at_once in pack.asked:
            return  # another run of the pack was stopped before, and all with it
        pack.asked.add(at_once)
        if self._options.cluster == "local":
            with suppress(ProcessLookupError):
                os.kill(int(pack.job.job_id), signal.SIGTERM)
        else:
            subprocess.run(["scancel", *(["--signal=KILL", "--full"] if at_once else []), pack.job.job_id], check=False)

    def shares(self, job: Job) -> bool:
        """Return False: where jobs share a GPU, the Slurm job itself sees to those that run out of memory."""
        return False

    def close(self) -> None:
        """Forget what runs, which goes on, and remove what nobody needs any more: no other sweep that waits for it."""
        if "processes" in self.__dict__:
            self.processes.close()
        waited_for = {pack.folder: pack for pack in self._packs}
        unattended = [study for study in self._studies() if not is_attended(study)]
        for submission in [found for study in unattended for found in Submission.read_all(study)]:
            folder = submission.folder
            if _are_finished(submission):
                if folder in waited_for:
                    _wait_for(waited_for[folder].job.paths.result_pickle)
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # if they are empty
                    folder.parent.rmdir()
                    folder.parent.parent.rmdir()

    def _studies(self) -> list[Path]:
        return sorted({job.folder.parent.absolute() for job in self._jobs})

    def _submit(self) -> None:
        """Submit the jobs that were taken, as one array.

        Raises:
            ConfigError: Slurm refuses them.
        """
        if not self._gathered:
            return
        jobs, size = self._gathered, self._options.runs_per_job
        self._gathered = []
        groups = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        folder = self._folder()
        for job in jobs:  # what was left of an earlier attempt
            given_up_file(folder, job).unlink(missing_ok=True)
            report_file(folder, job.run_id).with_suffix(SEEN).unlink(missing_ok=True)
        packs = [Pack(self._setting, [request(job) for job in group], folder) for group in groups]
        try:
            submitted = self._submitit(folder).submit_array(packs)
        except Exception as error:
            if not any(pack.folder == folder for pack in self._packs):  # of jobs that were submitted before
                shutil.rmtree(folder, ignore_errors=True)
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ConfigError(f"Slurm refuses the jobs: {lines[-1] if lines else error!r}") from error
        for job, group in zip(submitted, groups, strict=True):
            self._add(_Submitted(job, folder, [job.run_id for job in group]))
        ours = [pack for pack in self._packs if pack.folder == folder]
        runs = {pack.job.job_id: list(pack.runs) for pack in ours}
        processes = {job: Holder.of(int(job)) for job in runs if self._options.cluster == "local"}
        Submission(folder, self._options.cluster, runs, processes).write()

    def _add(self, pack: _Submitted) -> None:
        self._packs.append(pack)
        self._where |= dict.fromkeys(pack.runs, pack)

    def _submitit(self, folder: Path) -> Any:
        import submitit

        options = self._options
        executor = submitit.AutoExecutor(folder, cluster=options.cluster, slurm_max_num_timeout=_MOST_REQUEUES)
        parameters: dict[str, Any] = {
            "name": "mtlrun",
            "timeout_min": options.minutes,
            "cpus_per_task": self._cpus,
            "slurm_array_parallelism": self._workers or len(self._jobs),
            "slurm_signal_delay_s": min(_NOTICE, 30 * options.minutes),
            "slurm_additional_parameters": dict(options.options),
        }
        if self._gpus:
            parameters["gpus_per_node"] = self._gpus
        if options.mem_gb is not None:
            parameters["mem_gb"] = options.mem_gb
        if options.partition is not None:
            parameters["slurm_partition"] = options.partition
        executor.update_parameters(**parameters)
        return executor

    def _folder(self) -> Path:
        """Return the folder of what this sweep submits, made when it is first needed."""
        if self._made is None:
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
            self._made = (self._jobs[0].folder.parent / FOLDER / name).absolute()
            self._made.mkdir(parents=True)
        return self._made

    def _find_submitted(self, study: Path) -> list[_Submitted]:
        """Return the packs that earlier sweeps have submitted and that have not ended, without runs that have."""
        found = []
        for submission in Submission.read_all(study):
            if submission.cluster != self._options.cluster:
                continue
            for job_id, runs in submission.left().items():
                job = _submitit_job(submission.cluster, submission.folder, job_id)
                pack = _Submitted(job, submission.folder, runs, submission)
                if not self._has_ended(pack):
                    found.append(pack)
        return found

    def _collect(self) -> list[tuple[Job, Outcome]]:
        """Return the jobs that have ended since the last call, with what their reports say."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _POLL
            self._look_at_states(now)
        ended = []
        for run_id, job in list(self._running.items()):
            pack = self._where[run_id]
            outcome = _take_report(pack, job)
            if outcome is None and pack.ended_at is not None and now - pack.ended_at >= self._grace():
                outcome = self._explain(job, pack)
            if outcome is not None:
                del self._running[run_id], self._where[run_id]
                ended.append((job, outcome))
        return ended

    def _look_at_states(self, now: float) -> None:
        """Note which Slurm jobs have ended; submitit asks Slurm for all of them at once, ever less often."""
        in_flight = [pack for pack in self._packs if pack.ended_at is None]
        if any(pack.asked for pack in in_flight):
            in_flight[0].job.get_info(mode="force")
        for pack in in_flight:
            if self._has_ended(pack):
                pack.ended_at = now

    def _grace(self) -> float:
        return 0.0 if self._options.cluster == "local" or self._stopping else _GRACE

    def _has_ended(self, pack: _Submitted) -> bool:
        if self._options.cluster == "local" and pack.submission is not None:
            return pack.submission.has_ended(pack.job.job_id)
        return bool(pack.job.done())

    def _explain(self, job: Job, pack: _Submitted) -> Outcome:
        """Return the outcome of a run whose Slurm job has ended without a report on it."""
        is_orphan = self._options.cluster == "local" and pack.submission is not None
        state = "PREEMPTED" if is_orphan else str(pack.job.state).split()[0].upper()
        name = f"Slurm job {pack.job.job_id}"
        if self._stopping or job.given_up or state in ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "INTERRUPTED"):
            return lost(f"{name} was lost ({state})")
        reason = {
            "CANCELLED": "was canceled",
            "OUT_OF_MEMORY": "ran out of memory; hydra.launcher.slurm.mem_gb asks for more",
            "TIMEOUT": f"took longer than hydra.launcher.slurm.minutes={self._options.minutes}",
        }.get(state, f"ended without a report on this run ({state})")
        last = ""
        with suppress(OSError):
            lines = pack.job.paths.stderr.read_text(errors="replace").strip().splitlines()
            last = f": {lines[-1].strip()}" if lines else ""
        return Outcome(1, f"{name} {reason}{last}; see {pack.job.paths.stderr}", "Slurm")


def _submitit_job(cluster: str, folder: Path, job_id: str) -> Any:
    """Return submitit's view of a job that another process has submitted."""
    import submitit

    return (submitit.LocalJob if cluster == "local" else submitit.SlurmJob)(folder, job_id)


def _take_report(pack: _Submitted, job: Job) -> Outcome | None:
    """Return the outcome of a run that has a report in this sweep."""
    path = report_file(pack.folder, job.run_id)
    seen = path.with_suffix(SEEN)
    report = None
    with suppress(OSError, ValueError):
        report = json.loads(path.read_text())
    with suppress(OSError):
        path.rename(seen)
    if report is None:  # another sweep that waits for the run may have been first
        with suppress(OSError, ValueError):
            report = json.loads(seen.read_text())
    if report is None:
        return None
    job.started = time.monotonic() - report["seconds"]
    return outcome_of(report)


def _are_finished(submission: Submission) -> bool:
    """Return True if all runs that were submitted have a result, or have diverged."""
    try:
        records = [Record.read(submission.study / run) for runs in submission.packs.values() for run in runs]
    except MtlrunError:
        return False
    return all(record is not None and record.status in ("completed", "diverged") for record in records)


def _wait_for(path: Path) -> None:
    """Wait until a file is there, but not for long: it is the last one that a job writes."""
    until = time.monotonic() + _LAST_FILE
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
