"""Runs on this machine: as many side by side as there is room for, each with a GPU or with cores to itself."""

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.errors import ConfigError
from mtlrun.setup.machine import free_memory
from mtlrun.sweeps.jobs import Job, Outcome, Place
from mtlrun.sweeps.processes import Processes

#: Seconds that a run gets to save a checkpoint after it was asked to stop for its limits.
_GRACE = 60.0
_GIB = 2**30
#: What a run takes at least, beside what it shares with the fork server: for the number of runs that fit into memory.
_MEMORY_PER_RUN = 0.5 * _GIB


class LocalExecutor:
    """Places for runs on this machine.

    Args:
        jobs: that will be run, from which the kind of places follows: GPUs if any of them is to use one.
        processes: to run them in; None to start some.
        workers: number of places; None for as many as GPUs, or else as the threads of the runs leave room for.
        runs_per_gpu: places on each GPU.
        time_limit: minutes that one attempt of a run may take, None for any time.
        memory_limit: GiB that the processes of a run may take, None for any size.
        stop_by: the signal by which runs are asked to stop.

    Raises:
        ConfigError: there is no place.
    """

    survives = False

    def __init__(
        self,
        jobs: Sequence[Job],
        processes: Processes | None = None,
        *,
        workers: int | None = None,
        runs_per_gpu: int = 1,
        time_limit: float | None = None,
        memory_limit: float | None = None,
        stop_by: int = signal.SIGTERM,
    ) -> None:
        self.processes = processes or Processes()
        self.processes.load(modules_of(job.config for job in jobs))
        self._stop_by = stop_by
        self._time_limit, self._memory_limit = time_limit, memory_limit
        gpus = _visible_gpus(self.processes.gpus) if want_gpu(jobs) else []
        if gpus:
            count = len(gpus) * runs_per_gpu if workers is None else workers
            self.places = [Place(number, gpus[number % len(gpus)]) for number in range(count)]
        else:
            if runs_per_gpu != 1 and want_gpu(jobs):
                raise ConfigError(f"hydra.launcher.runs_per_gpu={runs_per_gpu}: there is no GPU on this machine")
            threads = max(threads_of(job.config) for job in jobs)
            self.places = [Place(number) for number in range(workers or number_that_fits(threads))]
        self._running: dict[int, Job] = {}
        self._stopping: dict[int, tuple[float, str]] = {}  # since when, and why

    def has_room(self, job: Job) -> bool:
        """Return True if the job can be started now."""
        return self._free_place(job) is not None

    def hold_back(self) -> None:
        """Do nothing: there is no queue in which jobs could wait."""

    def start(self, job: Job) -> None:
        """Start a job, for which there must be room."""
        job.place = self._free_place(job)
        assert job.place is not None
        environment = {}
        if job.place.gpu is not None and not job.config["runtime"]["device"].startswith("cuda:"):
            environment["CUDA_VISIBLE_DEVICES"] = job.place.gpu
        job.started = time.monotonic()
        for partner in job.partners:
            partner.place = job.place
        others = [(partner.config, partner.overrides) for partner in job.partners]
        number = self.processes.start("run", job.config, job.overrides, environment, others)
        self._running[number] = job

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Wait until a job ends, at most for some seconds; return those that ended."""
        ended = []
        for number, outcome in self.processes.wait(seconds).items():
            job = self._running.pop(number)
            _, reason = self._stopping.pop(number, (0.0, ""))
            if reason and outcome.code != 0:
                outcome.error, outcome.kind = reason, "Limit"
            ended.append((job, outcome))
            # Without a report, the process was killed, and what is known of one is known of all.
            ended += zip(job.partners, outcome.others or [outcome] * len(job.partners), strict=True)
        self._hold_limits()
        return ended

    def stop(self, job: Job, *, at_once: bool) -> None:
        """Ask a job to stop after its step, or kill it; those in its process have the same end."""
        for number, running in self._running.items():
            if running is job:
                self.processes.signal(number, signal.SIGKILL if at_once else self._stop_by)

    def close(self) -> None:
        """End what is left."""
        self.processes.close()

    def shares(self, job: Job) -> bool:
        """Return True if other jobs run on the same GPU, or on the same machine without one, as this job did."""
        return any(other is not job and _gpu(other) == _gpu(job) for other in self._running.values())

    def _free_place(self, job: Job) -> Place | None:
        occupied = {running.place for running in self._running.values()}
        alone = {_gpu(running) for running in self._running.values() if running.alone}
        load = Counter(_gpu(running) for running in self._running.values())
        free = [
            place
            for place in self.places
            if place not in occupied and place.gpu not in alone and not (job.alone and load[place.gpu])
        ]
        return min(free, key=lambda place: (load[place.gpu], place.number), default=None)

    def _hold_limits(self) -> None:
        """Stop the jobs that exceed a limit: first by a signal on which they save a checkpoint, then for certain."""
        now = time.monotonic()
        for number, job in self._running.items():
            if number in self._stopping:
                since, _ = self._stopping[number]
                if now - since > _GRACE:
                    self.processes.signal(number, signal.SIGKILL)
                continue
            reason = ""
            if self._time_limit is not None and now - job.started > 60 * self._time_limit:
                reason = f"took longer than hydra.launcher.time_limit={self._time_limit:g} minutes"
            elif self._memory_limit is not None:
                used = _memory_of(self.processes.pid(number)) / _GIB
                if used > self._memory_limit:
                    reason = (
                        f"used {used:.1f} GiB, and hydra.launcher.memory_limit={self._memory_limit:g} allows no more"
                    )
            if reason:
                self._stopping[number] = (now, reason)
                self.processes.signal(number, self._stop_by)


def want_gpu(jobs: Sequence[Job]) -> bool:
    """Return True if any job is to run on a GPU where there is one."""
    return any(job.config["runtime"]["device"] != "cpu" for job in jobs)


def threads_of(config: Mapping[str, Any]) -> int:
    """Return the number of threads that a run computes with on a CPU."""
    return int(config["runtime"]["num_threads"] or 1)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def modules_of(configs: Any) -> list[str]:
    """Return the modules of all classes that configs name by `_target_`."""
    found: dict[str, None] = {}

    def look(node: Any) -> None:
        if isinstance(node, Mapping):
            target = node.get("_target_")
            if isinstance(target, str) and "." in target:
                found.setdefault(target.rpartition(".")[0])
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    for config in configs:
        look(config)
    return list(found)


def _gpu(job: Job) -> str | None:
    assert job.place is not None
    return job.place.gpu


def _visible_gpus(count: int) -> list[str]:
    """Return the names of the visible GPUs, as CUDA_VISIBLE_DEVICES has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if visible is None else visible.split(",")[:count]


def number_that_fits(threads: int, cores: int | None = None) -> int:
    """Return how many runs with so many threads this machine can train side by side without getting in their way.

    Args:
        threads: of each run.
        cores: that there are for them; None for all that this process may use.
    """
    cores = available_cores() if cores is None else cores
    return max(1, min(cores // threads, int(free_memory(swap=False) / _MEMORY_PER_RUN)))


def _memory_of(pid: int | None) -> int:
    """Return the bytes that a process and its children have for themselves, 0 if it has ended."""
    import psutil

    if pid is None:
        return 0
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_full_info().uss
    except psutil.Error:
        return total
    return total
