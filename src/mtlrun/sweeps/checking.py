"""All runs of a sweep, checked before the first one starts."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.errors import ConfigError
from mtlrun.sweeps.jobs import Job
from mtlrun.sweeps.processes import Processes

# What a run is prepared with, but what cannot make it illegal if the same run with another value is legal.
_ALIKE = ("seed", "runtime", "found", "names")


def find_illegal(jobs: Sequence[Job], processes: Processes, at_once: int) -> dict[int, list[str]]:
    """Prepare the training of each run, and return {number of the job: problems} of those that cannot be trained.

    Runs that differ in their seed alone are prepared once.

    Args:
        jobs: to be checked.
        processes: in which they are prepared.
        at_once: number of processes side by side.
    """
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        alike.setdefault(_without_seed(job.config), []).append(job)
    waiting = list(alike.values())
    running: dict[int, list[Job]] = {}
    found: dict[int, list[str]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            group = waiting.pop(0)
            others = [(other.config, other.overrides) for other in group[0].together if other is not group[0]]
            running[processes.start("check", group[0].config, others=others)] = group
        for number, outcome in processes.wait(None).items():
            group = running.pop(number)
            # Other errors are not what was asked for, but what happened: the run itself will show whether they persist.
            if outcome.code == ConfigError.exit_code and outcome.problems:
                problems = list(outcome.problems)
                found |= {job.number: problems for job in group}
    return found


def put_together(jobs: Sequence[Job], numbers: Mapping[str, int]) -> None:
    """Let jobs that differ in their seed alone be trained in one process.

    Args:
        jobs: of the sweep.
        numbers: {run ID: how many at most}, of those that may be trained together.
    """
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        if job.run_id in numbers:
            alike.setdefault(_without_seed(job.config), []).append(job)
    for group in alike.values():
        size = numbers[group[0].run_id]
        for start in range(0, len(group), size):
            for job in group[start : start + size]:
                job.together = group[start : start + size]


def _without_seed(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in _ALIKE}
    runtime = {key: value for key, value in config["runtime"].items() if key != "study"}
    return json.dumps([kept, runtime, os.fspath(runtime["root"])], sort_keys=True)
