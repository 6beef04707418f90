"""The overview of many runs: what state each is in, how far it is, and when it may be done."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mtlrun.errors import MtlrunError
from mtlrun.records.folder import RECORD, SWEEPS
from mtlrun.records.heartbeat import Heartbeat, RunState, state_of
from mtlrun.records.record import Record
from mtlrun.records.submissions import SUBMISSIONS, Submission, find_queued


@dataclass
class Entry:
    """A run in an overview.

    Args:
        run_id: of the run.
        folder: of the run.
        state: of its record; `killed`, `silent` as in `state_of`; `waiting` if a sweep is still to start it, `queued`
            if a cluster is.
        record: None if there is none, or none that can be read.
        beat: None if it does not run.
        job: the ID of the cluster's job that it is in, "" unless it is queued.
    """

    run_id: str
    folder: Path
    state: RunState | str
    record: Record | None = None
    beat: Heartbeat | None = None
    job: str = ""


def entry_of(folder: Path) -> Entry:
    """Return the entry of the run in `folder`."""
    record, problem = None, ""
    try:
        record = Record.read(folder)
    except MtlrunError:
        problem = "unreadable"
    beat = Heartbeat.read(folder)
    return Entry(folder.name, folder, problem or state_of(record, beat), record, beat)


def read_entries(roots: Iterable[Path]) -> list[Entry]:
    """Return an entry for each run in and below some folders, and for each that sweeps or clusters have to train."""
    found: dict[str, Entry] = {}
    for root in roots:
        for path in sorted(root.glob(f"**/{RECORD}")):
            found.setdefault(path.parent.name, entry_of(path.parent))
        for path in sorted(root.glob(f"**/{SWEEPS}/*.json")):
            for run_id in planned_runs(path):
                entry = found.setdefault(run_id, Entry(run_id, path.parent.parent / run_id, "waiting"))
                if entry.state in ("killed", "failed", "interrupted") and entry.beat is None:
                    entry.state = "waiting"
        for folder, job in find_queued(Submission.read_all(root, f"**/{SUBMISSIONS}")).items():
            entry = found.setdefault(folder.name, Entry(folder.name, folder, "waiting"))
            if entry.state in ("waiting", "killed", "interrupted"):
                entry.state, entry.job = "queued", job
    return list(found.values())


def planned_runs(path: Path) -> list[str]:
    """Return what a sweep has still to train, nothing if it is gone.

    Args:
        path: of its file in `SWEEPS`.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        content = json.loads(path.read_bytes())
        beat = Heartbeat(host=str(content["host"]), pid=int(content["pid"]), at=float(content["at"]))
        if state_of(None, beat) == "running":
            return [str(run_id) for run_id in content["runs"]]
    return []


def newest_metrics(record: Record | None, beat: Heartbeat | None) -> str:
    """Return the newest main metrics of a run: of the last evaluation while it runs, on test when it is finished."""
    if record is None:
        return ""
    split = record.result_tag
    metrics: Mapping[str, Mapping[str, float]] = record.test
    if beat is not None and beat.metrics:
        split, metrics = record.evaluation_tag, beat.metrics
    values = [
        f"{task} {metric} {metrics[task][metric]:.3f}"
        for task, metric in record.main_metrics.items()
        if metric in metrics.get(task, {})
    ]
    return f"{split} {', '.join(values)}" if values else ""


def duration(seconds: float | None) -> str:
    """Return a time such as 1:05 or 2:03:00, in hours, minutes and seconds; "" for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_left(
    running: Sequence[float | None], durations: Sequence[float], waiting: int, places: int
) -> float | None:
    """Estimate when a sweep will be done; None if nothing is known yet.

    Args:
        running: seconds that each running run has left.
        durations: of the runs that have ended.
        waiting: number of runs that are still to start.
        places: number of runs side by side.
    """
    known = [seconds for seconds in running if seconds is not None]
    if waiting and not durations:
        return None
    if not waiting:
        return max(known) if known else None
    total = sum(known) + waiting * fmean(durations)
    return total / max(places, 1)
