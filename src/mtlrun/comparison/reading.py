"""The runs of many folders, and the files among them that are no records."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mtlrun.comparison.building import compare
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Comparison, Options
from mtlrun.errors import ConfigError, DataError, StorageError
from mtlrun.records.folder import CHECKPOINTS, RECORD, SWEEPS
from mtlrun.records.heartbeat import Heartbeat, state_of
from mtlrun.records.overview import planned_runs
from mtlrun.records.record import Record

Result = TypeVar("Result")


@dataclass
class FoundRuns:
    """The runs below some folders.

    Args:
        runs: a run that was found several times is there once.
        problems: what is wrong with each file that is called a record and is none, or is of a run that is there already
            with other results.
        waiting: runs that a sweep which is under way has still to start.
    """

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


def read_runs(folders: Iterable[Path]) -> FoundRuns:
    """Return the runs in and below some folders.

    Raises:
        DataError: a folder does not exist, or holds no record.
    """
    runs: dict[str, Run] = {}
    problems: list[str] = []
    waiting: dict[str, None] = {}
    for folder in folders:
        if not folder.exists():
            raise DataError(f"{folder}: there is no such folder")
        found: dict[str, Run] = {}
        damaged: list[str] = []
        for path in _folders(folder):
            if path.name == SWEEPS:
                waiting |= dict.fromkeys(run_id for file in path.glob("*.json") for run_id in planned_runs(file))
                continue
            try:
                record = Record.read(path)
            except DataError as error:
                damaged.append(str(error))
            else:
                if record is not None:
                    found |= {record.run_id: _choose(found.get(record.run_id), _as_run(record, path), problems)}
        if not found:
            raise DataError(f"{folder}: {'; '.join(damaged) or 'no run has left a record in or below this folder'}")
        problems += damaged
        runs |= {run_id: _choose(runs.get(run_id), run, problems) for run_id, run in found.items()}
    return FoundRuns(list(runs.values()), problems, [run_id for run_id in waiting if run_id not in runs])


def compare_folders(folders: Iterable[Path], options: Options | None = None) -> Comparison:
    """Return the comparison of the runs in and below some folders.

    Raises:
        DataError: a folder does not exist, or holds no record.
        ConfigError: the options name a key, or a metric, that no run has.
    """
    found = read_runs(folders)
    comparison, problems = despite_strange(found.runs, lambda runs: compare(runs, options))
    found.problems += problems
    comparison.problems = found.problems
    if found.waiting:
        comparison.notes.append(f"a sweep has still to start {len(found.waiting)} runs, which no row counts")
    return comparison


def _folders(folder: Path) -> Iterator[Path]:
    """Yield each folder in and below one that has a file called as a record is, or says what a sweep has to train."""
    seen: set[str] = set()  # a link may lead back to a folder above it
    for path, subfolders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(path)) in seen:
            subfolders.clear()
            continue
        seen.add(place)
        subfolders[:] = sorted(name for name in subfolders if name != CHECKPOINTS)
        if RECORD in files or RECORD in subfolders or os.path.basename(path) == SWEEPS:
            yield Path(path)


def _choose(earlier: Run | None, later: Run, problems: list[str]) -> Run:
    """Return one of two runs with the same config and seed: a completed one, and the one that was started last.

    That the other has other results is a problem: one of them is lost, and they should be equal.
    """
    if earlier is None:
        return later
    left, kept = sorted((earlier, later), key=lambda run: (run.state == "completed", str(run.record.started)))
    if left.record.test and repr(left.record.test) != repr(kept.record.test):
        problems.append(f"{left.folder}: {kept.folder} is the same run with other results, and was started later")
    return kept


def _as_run(record: Record, folder: Path) -> Run:
    state = state_of(record, Heartbeat.read(folder)) if record.status == "running" else record.status
    return Run(record, folder, state)


def despite_strange(
    runs: Sequence[Run], work: Callable[[Sequence[Run]], Result], *, empty: bool = False
) -> tuple[Result, list[str]]:
    """Return what `work` makes of runs without those whose records make no sense, and what is wrong with each of these.

    These are looked for when it fails, since to look at each run takes longer than most comparisons.

    Args:
        runs: all of them.
        work: raises ConfigError and StorageError for what is not a matter of the records.
        empty: whether it can do without any run.
    """
    try:
        return work(runs), []
    except (ConfigError, StorageError):
        raise
    except Exception:
        good, problems = _without_strange(runs)
        if not problems or not (good or empty):
            raise
        return work(good), problems


def _without_strange(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs whose records can be compared, and what is wrong with each of the others."""
    good, problems = [], []
    for run in runs:
        try:
            compare([Run(run.record)])
        except Exception as error:
            path = RECORD if run.folder is None else run.folder / RECORD
            problems.append(f"{path} cannot be compared ({type(error).__name__}: {error})")
        else:
            good.append(run)
    return good, problems
