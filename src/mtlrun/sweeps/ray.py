"""Runs on a Ray cluster, through Ray's core API: actors with cores and perhaps a GPU that train run after run."""

import math
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mtlrun.config.diagnosis import first_line
from mtlrun.errors import ConfigError
from mtlrun.sweeps.jobs import Job, Outcome, Place
from mtlrun.sweeps.local import modules_of, threads_of, want_gpu
from mtlrun.sweeps.processes import Processes
from mtlrun.sweeps.remote import Setting, Worker, lost, outcome_of, request

_OBJECT_STORE = 100 * 2**20  # bytes, where Ray is started here; configs are small
_PATIENCE = 10.0  # seconds for the cluster to answer


@dataclass(frozen=True)
class RayOptions:
    """What conf/hydra/launcher/mtlrun.yaml has below `ray`, where the keys are explained."""

    address: str | None = None


class RayExecutor:
    """Actors of a Ray cluster, each a `Worker` that trains one run at a time.

    Args:
        jobs: that will be run, from which the kind of actors follows: with a GPU if any of them is to use one.
        options: of the cluster.
        workers: number of actors; None for as many as the cluster has room for now.
        runs_per_gpu: actors on each GPU.
        time_limit, memory_limit: as of the launcher.

    Raises:
        ConfigError: Ray is not installed, cannot be reached, or has no room for an actor.
    """

    survives = False

    def __init__(
        self,
        jobs: Sequence[Job],
        options: RayOptions,
        processes: Processes | None = None,
        *,
        workers: int | None = None,
        runs_per_gpu: int = 1,
        time_limit: float | None = None,
        memory_limit: float | None = None,
    ) -> None:
        self._jobs, self._processes, self._runs_per_gpu = list(jobs), processes, runs_per_gpu
        self._ray = _connect(options)
        resources = self._ray.cluster_resources()
        wants_gpu = want_gpu(jobs)
        self._gpus, cpus = (resources.get("GPU", 0) if wants_gpu else 0), resources.get("CPU", 0)
        self._cpus = max(threads_of(job.config) + int(job.config["runtime"]["num_workers"]) for job in jobs)
        if runs_per_gpu != 1 and wants_gpu and not self._gpus:
            raise ConfigError(f"hydra.launcher.runs_per_gpu={runs_per_gpu}: the Ray cluster has no GPU")
        room = math.floor(min(cpus / self._cpus, self._gpus * runs_per_gpu if self._gpus else math.inf))
        if not room and workers is None:
            raise ConfigError(
                f"hydra.launcher.executor=ray: a run takes {self._cpus} cores, and the cluster has {cpus:g} in all; if "
                "it grows on demand, set hydra.launcher.workers"
            )
        self.places = [Place(number) for number in range(workers or room)]
        self._setting = Setting.here(gpus=bool(self._gpus), time_limit=time_limit, memory_limit=memory_limit)
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Job, Any]] = {}  # by the future of the report

    @cached_property
    def processes(self) -> Processes:
        """Processes on this machine, to check runs in."""
        processes = self._processes or Processes()
        processes.load(modules_of(job.config for job in self._jobs))
        return processes

    def has_room(self, job: Job) -> bool:
        """Return True if fewer runs than there are workers are under way."""
        return len(self._running) < len(self.places)

    def hold_back(self) -> None:
        """Do nothing: there is no queue in which jobs could wait."""

    def start(self, job: Job) -> None:
        """Give a job to an idle actor, or to a new one, which Ray starts as soon as there is room."""
        if job.alone:
            while self._idle:  # they hold parts of GPUs
                self._ray.kill(self._idle.pop())
        actor = self._idle.pop() if self._idle else self._make_actor(alone=job.alone)
        self._running[actor.train.remote([request(job)])] = job, actor

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Wait until a job ends, at most for some seconds; return those that ended."""
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [self._take(future) for future in ready]

    def stop(self, job: Job, *, at_once: bool) -> None:
        """Let a job save a checkpoint and end, or kill its actor."""
        for running, actor in self._running.values():
            if running is job and at_once:
                self._ray.kill(actor)
            elif running is job:
                actor.stop.remote(signal.SIGTERM)

    def shares(self, job: Job) -> bool:
        """Return True if GPUs are shared."""
        return bool(self._gpus) and self._runs_per_gpu > 1

    def close(self) -> None:
        """End what is left, and leave the cluster."""
        if "processes" in self.__dict__:
            self.processes.close()
        for actor in [*self._idle, *(actor for _, actor in self._running.values())]:
            self._ray.kill(actor)
        self._ray.shutdown()

    def _make_actor(self, *, alone: bool) -> Any:
        gpus = 0.0 if not self._gpus else 1.0 if alone else 1 / self._runs_per_gpu
        # A second thread, for `stop`.
        options = {"num_cpus": self._cpus, "num_gpus": gpus, "max_concurrency": 2}
        return self._ray.remote(**options)(Worker).remote(self._setting)

    def _take(self, future: Any) -> tuple[Job, Outcome]:
        """Return the outcome of a job that has ended, and see to its actor."""
        job, actor = self._running.pop(future)
        try:
            reports = self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:  # in `Worker` itself
            self._ray.kill(actor)
            return job, Outcome(1, str(error.cause), type(error.cause).__name__)
        except self._ray.exceptions.RayError as error:
            cause = [line.strip() for line in str(error).splitlines() if line.strip()]
            return job, lost(f"Ray lost the process of the run: {' '.join(cause[-1:])}")
        if job.alone or job.given_up or not reports:  # an actor that was asked to stop starts nothing more
            self._ray.kill(actor)
        else:
            self._idle.append(actor)
        return job, outcome_of(reports[0]) if reports else lost("the run was stopped on its machine")


def _connect(options: RayOptions) -> Any:
    """Return the module `ray`, connected to the cluster.

    Raises:
        ConfigError: it is not installed, or the cluster cannot be reached.
    """
    key = "hydra.launcher.ray.address"
    if options.address is None:
        raise ConfigError(
            f"{key} is missing: <host>:<port> of the cluster, auto for the one that this machine is part of, or local "
            "to start Ray on this machine alone"
        )
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError('hydra.launcher.executor=ray needs Ray: pip install "mtlrun[ray]"') from None
    if options.address not in ("auto", "local"):
        host, _, port = options.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _PATIENCE).close()  # Ray itself would try for minutes
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(f"{key}={options.address}: nothing answers there: {error}; write <host>:<port>") from None
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if options.address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=options.address, **settings)
    except Exception as error:
        raise ConfigError(f"{key}={options.address}: {first_line(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # which Ray replaces
    return ray
