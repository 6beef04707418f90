"""The plan of a sweep: what each run is, what is done already, what is refused, and an estimate of time and disk."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mtlrun.errors import MtlrunError
from mtlrun.records.folder import has_checkpoint
from mtlrun.records.overview import duration
from mtlrun.records.record import Record
from mtlrun.sweeps.jobs import Job
from mtlrun.sweeps.processes import Processes

#: last.pt, previous.pt and best.pt, and what else a run leaves, in units of a checkpoint.
_CHECKPOINTS_PER_RUN = 3
_GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """What is left of a run.

    Args:
        seconds: that it takes.
        checkpoint_bytes: size of one checkpoint.
    """

    seconds: float
    checkpoint_bytes: float


def print_plan(
    jobs: Sequence[Job],
    illegal: Mapping[int, Sequence[str]],
    processes: Processes,
    places: int,
    write: Callable[[str], None],
) -> None:
    """Print a line for each run, and an estimate for those that are still to be trained.

    Args:
        jobs: of the sweep.
        illegal: {number of the job: problems}.
        processes: in which a run of each kind is probed.
        places: number of runs side by side.
        write: prints a line.
    """
    legal = [job for job in jobs if not job.was_done and job.number not in illegal]
    earlier = {job.number: record for job in jobs if not job.was_done and (record := _record(job)) is not None}
    estimates = estimate(legal, processes, earlier)
    states: Counter[str] = Counter()
    for job in jobs:
        state, detail = describe(job, illegal.get(job.number, ()), earlier.get(job.number))
        states[state] += 1
        time = f", about {duration(estimates[job.number].seconds)}" if job.number in estimates else ""
        write(f"{job.number}/{len(jobs)} {job.run_id}: {state}{time}: {' '.join(job.overrides)}")
        for line in detail:
            write(f"    {line}")
    write(f"{len(jobs)} runs: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    if estimates:
        total = describe_total(list(estimates.values()), places)
        write(f"{total}; measured in a few steps of each dataset, model and weighting")


def estimate(
    jobs: Sequence[Job], processes: Processes, earlier: Mapping[int, Record] | None = None
) -> dict[int, Estimate]:
    """Return {number of a job: its estimate}, without jobs of kinds that cannot be probed.

    Args:
        jobs: to be trained.
        processes: in which one of each kind is probed.
        earlier: {number of a job: its record} of those that an earlier sweep has begun.
    """
    found = {}
    for group in _alike(jobs):
        probe = _probe(group[0], processes)
        if probe is not None:
            for job in group:
                seconds = _seconds(probe) * (1 - _fraction_made(job, (earlier or {}).get(job.number)))
                found[job.number] = Estimate(seconds, probe["checkpoint_bytes"])
    return found


def describe_total(estimates: Sequence[Estimate], places: int) -> str:
    """Return in words what several runs take, so many side by side."""
    disk = _CHECKPOINTS_PER_RUN * sum(one.checkpoint_bytes for one in estimates) / _GIB
    time = duration(sum(one.seconds for one in estimates) / places)
    return f"about {time} on {places} {'place' if places == 1 else 'places'}, {disk:.2g} GiB of checkpoints"


def describe(job: Job, problems: Sequence[str], record: Record | None) -> tuple[str, Sequence[str]]:
    """Return what would become of a job, and lines on why.

    Args:
        job: of the sweep.
        problems: for which it is refused.
        record: that an earlier sweep has left of it.
    """
    if problems:
        return "refused", problems
    if job.was_done:
        return "finished" if job.state == "completed" else job.state, [job.error] if job.error else []
    if record is None:
        return "new", []
    if job.config["runtime"].get("rerun"):
        return "to be trained anew", []
    if record.status == "failed":
        return "to be tried again", [record.error or ""]
    return "to be continued", []


def _fraction_made(job: Job, record: Record | None) -> float:
    """Return which part of a run's steps need not be made again, as far as its record knows."""
    if record is None or not record.total_steps or job.config["runtime"].get("rerun"):
        return 0.0
    if not has_checkpoint(job.folder):
        return 0.0
    return record.steps / record.total_steps


def _record(job: Job) -> Record | None:
    """Return what an earlier sweep has left of a run."""
    with suppress(MtlrunError):
        return Record.read(job.folder)
    return None


def _alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs in groups that take about as long: of one dataset, backbone, model, weighting and length."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        config = job.config
        node = {key: config.get(key) for key in ("names", "dataset", "backbone", "model", "weighting", "trainer")}
        groups.setdefault(json.dumps(node, sort_keys=True), []).append(job)
    return list(groups.values())


def _probe(job: Job, processes: Processes) -> dict[str, Any] | None:
    """Return the fields of a `Probe`, None if the run fails."""
    number = processes.start("probe", job.config)
    while True:
        outcome = processes.wait(None).get(number)
        if outcome is not None:
            return outcome.result


def _seconds(found: Mapping[str, Any]) -> float:
    evaluations = (found["evaluations"] + 1) * found["seconds_per_evaluation"]
    return float(found["seconds_to_start"] + found["steps"] * found["seconds_per_step"] + evaluations)
