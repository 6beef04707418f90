"""The executors by name: this machine, a Slurm cluster, a Ray cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from mtlrun.errors import ConfigError
from mtlrun.sweeps.jobs import Job, Place
from mtlrun.sweeps.local import LocalExecutor
from mtlrun.sweeps.processes import Processes
from mtlrun.sweeps.ray import RayExecutor, RayOptions
from mtlrun.sweeps.scheduler import Executor
from mtlrun.sweeps.slurm import SlurmExecutor
from mtlrun.sweeps.slurm_options import SlurmOptions

EXECUTORS = ("local", "slurm", "ray")

T = TypeVar("T")


class SweepExecutor(Executor, Protocol):
    """An executor, and what the launcher wants of it before the sweep begins."""

    #: As many as runs, or packs of runs, go side by side.
    places: list[Place]

    @property
    def processes(self) -> Processes:
        """Processes on this machine, to check runs in."""

    def hold_back(self) -> None:
        """Have room from now on for what runs side by side alone, so that a search chooses a run when it can start.

        Raises:
            ConfigError: nobody has said how much that is.
        """


def make_executor(
    name: str,
    jobs: Sequence[Job],
    processes: Processes,
    slurm: Mapping[str, Any],
    ray: Mapping[str, Any],
    **limits: Any,
) -> SweepExecutor:
    """Return an executor.

    Args:
        name: of `EXECUTORS`.
        jobs: that will be run.
        processes: on this machine, which the executor closes when it is closed.
        slurm, ray: options of the cluster; those of the other executors are ignored.
        limits: `workers`, `runs_per_gpu`, `time_limit` and `memory_limit` of the launcher.

    Raises:
        ConfigError: an option is unknown or impossible, or the cluster cannot be reached.
    """
    if name == "slurm":
        return SlurmExecutor(jobs, _options(SlurmOptions, "slurm", slurm), processes, **limits)
    if name == "ray":
        return RayExecutor(jobs, _options(RayOptions, "ray", ray), processes, **limits)
    return LocalExecutor(jobs, processes, **limits)


def _options(cls: type[T], name: str, values: Mapping[str, Any]) -> T:
    allowed = [entry.name for entry in fields(cls)]  # type: ignore[arg-type]
    unknown = [str(key) for key in values if key not in allowed]
    if unknown:
        raise ConfigError(f"hydra.launcher.{name}: unknown: {', '.join(unknown)}; its keys are {', '.join(allowed)}")
    return cls(**values)
