"""A search from its command line to its result."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from mtlrun.errors import ConfigError
from mtlrun.records.folder import hold
from mtlrun.runs.signals import stopping_at_once
from mtlrun.sweeps.executors import SweepExecutor
from mtlrun.sweeps.jobs import Job
from mtlrun.sweeps.launcher import SweepLauncher
from mtlrun.sweeps.planning import Estimate, describe_total, estimate
from mtlrun.sweeps.processes import Processes
from mtlrun.sweeps.screen import LineView, print_line
from mtlrun.sweeps.search.objectives import Objectives, Scale
from mtlrun.sweeps.search.rules import Rules
from mtlrun.sweeps.search.space import Space
from mtlrun.sweeps.search.trials import Trials, count_ended, folder_of


def search(launcher: SweepLauncher, space: Space, names: Sequence[str], rules: Rules) -> None:
    """Train the trials of a search that are missing, and print the best ones.

    Args:
        launcher: of the runs.
        space: that is searched.
        names: of the objectives.
        rules: how trials are chosen.

    Raises:
        ConfigError: before anything was started.
        RunInUseError: another process is at the same search.
        SweepError, RunInterruptedError: as in `SweepLauncher.train`.
    """
    with _prepared(launcher, space, names) as (executor, objectives, folder, legal):

        def make_job(overrides: Sequence[str]) -> Job:
            jobs, wrong = launcher.list_jobs([overrides])
            if wrong:
                raise ConfigError(wrong)
            return jobs[0]

        with hold(folder):
            trials = Trials(folder, space, objectives, rules, legal[0], make_job)
            if rules.pruner is not None and len(names) > 1:
                print_line("no run is pruned: with several objectives, none is worse before it has ended")
            try:
                launcher.train(trials.finished, executor, trials)
            finally:
                for line in trials.describe_best(LineView(launcher.command(), print_line).command_of):
                    print_line(line)


def plan_search(launcher: SweepLauncher, space: Space, names: Sequence[str], rules: Rules) -> None:
    """Print what a search would do: its space, its number of trials, and an estimate; nothing is trained.

    Args, Raises: as in `search`.
    """
    with _prepared(launcher, space, names) as (executor, _, folder, legal), stopping_at_once():
        for line in space.lines():
            print_line(line)
        done = min(count_ended(folder), rules.trials)
        early = "" if rules.pruner is None or len(names) > 1 else ", some of which are stopped early"
        print_line(
            f"{rules.trials} trials by {', '.join(names)} on validation, {done} of them ended already; "
            f"{min(rules.startup, rules.trials)} are drawn at random, the others by the results of those before{early}"
        )
        found = list(estimate(legal, executor.processes).values())
        if found and done < rules.trials:
            mean = Estimate(fmean(one.seconds for one in found), fmean(one.checkpoint_bytes for one in found))
            total = describe_total([mean] * (rules.trials - done), len(executor.places))
            print_line(f"{total} if no trial is stopped early; measured in a few steps at the ends of the space")


@contextmanager
def _prepared(
    launcher: SweepLauncher, space: Space, names: Sequence[str]
) -> Iterator[tuple[SweepExecutor, Objectives, Path, list[Job]]]:
    """Yield what trains the runs, the objectives, the folder of the search, and runs at the ends of the space.

    Raises:
        ConfigError: the search is refused.
    """
    with Processes() as processes:
        corners, wrong = launcher.list_jobs(space.corners())
        if not wrong:
            _check_protocol(corners[0].config)
        with launcher.checked(corners, processes) as (executor, illegal):
            legal = [job for job in corners if job.number not in illegal]
            launcher.refuse(corners, illegal, wrong)
            if not legal:
                raise ConfigError([problem for problems in illegal.values() for problem in problems])
            assert executor is not None
            executor.hold_back()
            objectives = Objectives(names, _find_scale(legal[0], processes))
            yield executor, objectives, folder_of(corners[0], space, objectives), legal


def _check_protocol(config: Mapping[str, Any]) -> None:
    if config["dataset"].get("protocol") == "legacy":
        raise ConfigError(
            "dataset.protocol=legacy: a search compares runs on validation, and there is none; use "
            "dataset.protocol=standard"
        )


def _find_scale(job: Job, processes: Processes) -> Scale:
    """Return what metrics the tasks have."""
    number = processes.start("check", job.config)
    while (outcome := processes.wait(None).get(number)) is None:
        pass
    if outcome.result is None:
        raise ConfigError(outcome.problems or [outcome.error or f"{job.run_id} cannot be prepared"])
    return Scale.parse(outcome.result)
