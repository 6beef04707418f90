"""The announcement of a sweep: a file in each study's folder that lists what is still to be trained there."""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mtlrun.records.folder import SWEEPS
from mtlrun.records.heartbeat import repeating
from mtlrun.records.overview import planned_runs
from mtlrun.sweeps.jobs import ENDED, Job


@contextmanager
def announced(jobs: Sequence[Job]) -> Iterator[None]:
    """Let `mtlrun status` see which runs wait, until the block ends; more jobs may be added meanwhile."""
    studies: set[Path] = set()

    def write() -> None:
        waiting = [job for job in jobs if job.state not in ENDED]
        studies.update(job.folder.parent for job in waiting)
        for folder in studies:
            of_study = [job.run_id for job in waiting if job.folder.parent == folder]
            content = {"host": platform.node(), "pid": os.getpid(), "at": time.time(), "runs": of_study}
            path = _path(folder)
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(content))
                os.replace(temporary, path)

    try:
        with repeating(write, "announcement"):
            yield
    finally:
        for folder in studies:
            with suppress(OSError):
                _path(folder).unlink(missing_ok=True)
                _path(folder).parent.rmdir()  # if no other sweep is under way


def is_attended(study: Path) -> bool:
    """Return True if a sweep that waits for runs of a study is under way."""
    return any(planned_runs(path) for path in (study / SWEEPS).glob("*.json"))


def _path(folder: Path) -> Path:
    return folder / SWEEPS / f"{platform.node()}-{os.getpid()}.json"
