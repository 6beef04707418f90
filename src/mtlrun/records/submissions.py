"""What sweeps have submitted to a cluster, noted in the study's folder, where it outlives them."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mtlrun.records.folder import SWEEPS, open_atomically
from mtlrun.records.json_types import read_as
from mtlrun.records.lock import Holder, process_exists

#: In the folder of a study: the jobs of a sweep; beside them are the reports on their runs, and their logs.
FOLDER, _FILE = f"{SWEEPS}/slurm", "packs.json"
SUBMISSIONS = f"{FOLDER}/*/{_FILE}"
#: The ending of a report's name once its sweep has seen it.
SEEN = ".seen"
_PATIENCE = 10.0  # seconds for the cluster to list its queue


@dataclass(frozen=True)
class Submission:
    """What one sweep has submitted.

    Args:
        folder: of reports and logs.
        cluster: `slurm`, or `local` for jobs that are processes of this machine.
        packs: {ID of a job: the runs that it trains}.
        processes: {ID of a job: its process}, of jobs that are processes.
    """

    folder: Path
    cluster: str
    packs: Mapping[str, Sequence[str]]
    processes: Mapping[str, Holder] = field(default_factory=dict)

    def write(self) -> None:
        """Write the file.

        Raises:
            StorageError: the disk is full, ...
        """
        with open_atomically(self.folder / _FILE) as file:
            processes = {job: asdict(process) for job, process in self.processes.items()}
            file.write(json.dumps({"cluster": self.cluster, "packs": self.packs, "processes": processes}).encode())

    @classmethod
    def read_all(cls, root: Path, pattern: str = SUBMISSIONS) -> list["Submission"]:
        """Return the submissions that can be read of the study in `root`, or of whatever the pattern finds there."""
        found = []
        for path in sorted(root.glob(pattern)):
            try:
                content = json.loads(path.read_bytes())
                packs = read_as(dict[str, list[str]], content["packs"])
                processes = {job: Holder(**process) for job, process in content.get("processes", {}).items()}
                found.append(cls(path.parent, str(content["cluster"]), packs, processes))
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
        return found

    @property
    def study(self) -> Path:
        """The folder of the runs."""
        return self.folder.parents[2]

    def has_ended(self, job: str) -> bool:
        """Return True if a job that is a process of this machine certainly runs no more."""
        process = self.processes.get(job)
        return process.has_ended() if process is not None else not (job.isdecimal() and process_exists(int(job)))

    def left(self) -> dict[str, list[str]]:
        """Return {ID of a job: those of its runs that no report is there on}, without jobs that have none."""
        found = {}
        for job, runs in self.packs.items():
            waiting = [run for run in runs if not self._has_report(run)]
            if waiting:
                found[job] = waiting
        return found

    def _has_report(self, run: str) -> bool:
        file = report_file(self.folder, run)
        return file.exists() or file.with_suffix(SEEN).exists()


def report_file(folder: Path, run_id: str) -> Path:
    """Return the file for a cluster's report on a run."""
    return folder / f"{run_id}.json"


def find_queued(submissions: Sequence[Submission]) -> dict[Path, str]:
    """Return {folder of a run: ID of its job} of what is submitted and not reported on.

    Where this machine has Slurm's `squeue`, jobs that it does not list are left out: they were canceled, or have ended
    without a report.
    """
    found: dict[Path, str] = {}
    in_queue = _list_queue() if any(submission.cluster == "slurm" for submission in submissions) else None
    for submission in submissions:
        for job, runs in submission.left().items():
            if submission.cluster == "slurm":
                is_there = in_queue is None or job in in_queue
            else:
                is_there = not submission.has_ended(job)
            if is_there:
                found |= {submission.study / run: job for run in runs}
    return found


def _list_queue() -> set[str] | None:
    """Return the IDs of all jobs in Slurm's queue, None if it cannot be asked."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--format=%i"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(done.stdout.split())
