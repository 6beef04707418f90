"""The launcher that Hydra calls for a sweep: it composes all runs, checks them, and has them trained."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mtlrun.config.bounds import Parts, Positive
from mtlrun.config.instantiate import check_arguments
from mtlrun.errors import ConfigError, RunInterruptedError, SweepError
from mtlrun.records.display import make_console
from mtlrun.records.record import Record, finished_record
from mtlrun.runs.signals import stop_signals, stopping_at_once
from mtlrun.sweeps.announcement import announced
from mtlrun.sweeps.checking import find_illegal
from mtlrun.sweeps.composing import Composer, compose_jobs, config_dirs, gather
from mtlrun.sweeps.executors import EXECUTORS, SweepExecutor, make_executor
from mtlrun.sweeps.jobs import Job
from mtlrun.sweeps.local import available_cores
from mtlrun.sweeps.planning import print_plan
from mtlrun.sweeps.processes import Processes
from mtlrun.sweeps.scheduler import Scheduler, Supply
from mtlrun.sweeps.screen import LineView, LiveView, print_line
from mtlrun.sweeps.sweeper import plain

RETRY = ("failed", "none", "all")
ILLEGAL = ("refuse", "skip")


class SweepLauncher(Launcher):
    """Trains each run of a sweep in a process of its own; see conf/hydra/launcher/mtlrun.yaml for the arguments."""

    # Hydra takes plugins from this package only, or those that are registered under a name of it.
    __module__ = "hydra_plugins.mtlrun"

    def __init__(
        self,
        workers: Parts | None = None,
        runs_per_gpu: Parts = 1,
        time_limit: Positive | None = None,
        memory_limit: Positive | None = None,
        retry: str = "failed",
        illegal: str = "refuse",
        executor: str = "local",
        slurm: Mapping[str, Any] | None = None,
        ray: Mapping[str, Any] | None = None,
    ) -> None:
        numbers = {"workers": workers, "runs_per_gpu": runs_per_gpu, "time_limit": time_limit,
                   "memory_limit": memory_limit}  # fmt: skip
        problems = check_arguments(SweepLauncher, numbers, "hydra.launcher", complete=False)
        for key, value, allowed in (
            ("retry", retry, RETRY), ("illegal", illegal, ILLEGAL), ("executor", executor, EXECUTORS),
        ):  # fmt: skip
            if value not in allowed:
                problems.append(f"hydra.launcher.{key}={value}: must be one of {', '.join(allowed)}")
        if problems:
            raise ConfigError(problems)
        self._executor_name = executor
        self._make_executor = partial(
            make_executor,
            executor,
            slurm=plain(slurm) or {},
            ray=plain(ray) or {},
            workers=workers,
            runs_per_gpu=runs_per_gpu,
            time_limit=time_limit,
            memory_limit=memory_limit,
        )
        self._retry, self._skips_illegal = retry, illegal == "skip"

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows."""
        assert isinstance(hydra_context.config_loader, ConfigLoaderImpl)
        self._composer = Composer(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train all runs; return when all have ended.

        Raises:
            ConfigError: before anything was started: runs are refused.
            SweepError: runs have failed, or diverged.
            RunInterruptedError: a signal stopped the sweep.
        """
        with Processes() as processes:  # PyTorch is imported there, while the runs are composed here
            jobs, wrong = self.list_jobs(job_overrides)
            with self.checked([job for job in jobs if not job.was_done], processes) as (executor, illegal):
                self.refuse(jobs, illegal, wrong)
                self.train(jobs, executor)
        return [_job_return(job) for job in jobs]

    def list_jobs(self, job_overrides: Sequence[Sequence[str]]) -> tuple[list[Job], list[str]]:
        """Return a job for each run, with its state if there is nothing to train, and problems of other runs."""
        jobs, problems = compose_jobs(self._composer, job_overrides)
        for job in jobs:
            self._note_what_is_done(job)
        return jobs, problems

    @contextmanager
    def checked(
        self, jobs: Sequence[Job], processes: Processes
    ) -> Iterator[tuple[SweepExecutor | None, Mapping[int, Sequence[str]]]]:
        """Yield what runs the jobs, None if there are none, and {number: problems} of those that are refused.

        Args:
            jobs: to be trained.
            processes: in which they are checked and, on this machine, trained.
        """
        if not jobs:
            yield None, {}
            return
        if self._executor_name != "local" and any(len(job.together) > 1 for job in jobs):
            key = f"hydra.launcher.executor={self._executor_name}"
            raise ConfigError(f"trainer.vectorized_seeds: with {key} a process trains each run; leave it out")
        executor = self._make_executor(jobs, processes)
        try:
            with stopping_at_once():
                illegal = find_illegal(jobs, executor.processes, min(len(executor.places), available_cores()))
            yield executor, illegal
        finally:
            executor.close()

    def train(self, jobs: list[Job], executor: SweepExecutor | None, supply: Supply | None = None) -> None:
        """Train what is not done, and show it.

        Args:
            jobs: of the sweep; those of the supply are added.
            executor: that runs them; None if there is nothing to run.
            supply: of further jobs.

        Raises:
            SweepError: runs have failed, or diverged.
            RunInterruptedError: a signal stopped the sweep.
        """
        console = make_console()
        if executor is None or not console.is_terminal:
            view = LineView(self.command(), print_line)
        else:
            view = LiveView(self.command(), console, len(executor.places))
        if executor is None:
            view.begin(jobs, len(jobs))
            view.end()
        else:
            with stop_signals() as stop_signal, announced(jobs):
                Scheduler(jobs, executor, view, stop_signal, supply).run()
                number = stop_signal()
            if number is not None:
                raise RunInterruptedError(number)
            if supply is None and any(job.attempts for job in jobs):
                _write_curves_of_methods(jobs)
        counts = Counter(job.state for job in jobs)
        if counts["failed"] or counts["diverged"]:
            raise SweepError(counts["failed"], counts["diverged"], len(jobs))

    def _note_what_is_done(self, job: Job) -> None:
        """Set the state of a job that needs no training."""
        record = finished_record(job.config)
        if record is None:
            earlier = None if job.config["runtime"].get("rerun") else Record.read(job.folder)
            if earlier is not None and earlier.status == "failed" and self._retry == "none":
                job.state, job.was_done, job.error = "failed", True, earlier.error
        elif record.status == "diverged" and self._retry == "all":
            # It would diverge again at the same step: it is trained anew, in case the code is another.
            job.config = {**job.config, "runtime": {**job.config["runtime"], "rerun": True}}
        elif record.status == "diverged":
            job.state, job.was_done, job.error = "diverged", True, record.error
        elif not record.lacks_baselines(job.config):
            job.state, job.was_done = "completed", True

    def refuse(self, jobs: Sequence[Job], illegal: Mapping[int, Sequence[str]], wrong: Sequence[str]) -> None:
        """Leave out illegal runs, or refuse the whole sweep; what cannot be composed is always refused."""
        if self._skips_illegal and not wrong:
            for job in jobs:
                if job.number in illegal:
                    job.state, job.was_done, job.error = "refused", True, "; ".join(illegal[job.number])
            return
        overrides = {job.number: job.overrides for job in jobs}
        found = [(overrides[number], problem) for number, problems in illegal.items() for problem in problems]
        problems = [*wrong, *gather(found, list(overrides.values()))]
        if not problems:
            return
        way_on = ""
        if len(illegal) < len(jobs) and not wrong:
            way_on = f"{len(illegal)} of {len(jobs)} runs are refused; to train the others: hydra.launcher.illegal=skip"
        raise ConfigError(problems, way_on)

    def command(self) -> list[str]:
        """Return the words before the overrides of a run."""
        return ["mtlrun", *(f"--config-dir={folder}" for folder in config_dirs(self._composer.base))]


class PlanLauncher(SweepLauncher):
    """Prints what the launcher of sweeps would do, and trains nothing."""

    __module__ = "hydra_plugins.mtlrun"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Print the plan.

        Raises:
            ConfigError: runs cannot be composed.
        """
        with Processes() as processes, stopping_at_once():
            jobs, wrong = self.list_jobs(job_overrides)
            if wrong:
                raise ConfigError(wrong)
            with self.checked([job for job in jobs if not job.was_done], processes) as (executor, illegal):
                places = 1 if executor is None else len(executor.places)
                print_plan(jobs, illegal, processes, places, print_line)
        return [_job_return(job) for job in jobs]


def _write_curves_of_methods(jobs: Sequence[Job]) -> None:
    """Write mean curves of the study for TensorBoard; that they cannot be written does not make a sweep fail."""
    from mtlrun.comparison.event_summary import SUMMARY, summarize

    try:
        summaries, _ = summarize({job.folder.parent for job in jobs})
    except Exception as error:
        print_line(f"no mean curves for TensorBoard ({type(error).__name__}: {error})")
        return
    for summary in summaries:
        if summary.methods:
            print_line(f"mean curves for TensorBoard, one per method: {summary.folder / SUMMARY}")


def _job_return(job: Job) -> JobReturn:
    returned = JobReturn(overrides=job.overrides, cfg=DictConfig(job.config), status=JobStatus.COMPLETED)
    returned.return_value = None
    return returned
