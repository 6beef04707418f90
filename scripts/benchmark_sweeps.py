"""How fast 24 short runs are: by mtlrun's launcher, by Hydra's, by Hydra's plugin for joblib, and by 24 commands.

    pip install hydra-joblib-launcher
    python scripts/benchmark_sweeps.py outputs/sweeps

Each trains the same 24 runs in a folder of its own, each run on one thread. The limit of a way is the sum of the time
that its runs spent on training, evaluating and writing, over the number of cores, whatever else the machine had to do
meanwhile. Prints for each way its time, the limit as a fraction of it, and the largest memory that a process had for
itself.
"""

import argparse
import contextlib
import itertools
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from mtlrun.records.record import Record
from mtlrun.sweeps.local import available_cores

VALUES = {"weighting": ["equal", "uncertainty", "gradnorm", "mgda"], "seed": ["0", "1", "2", "3", "4", "5"]}
COMMON = ["trainer.limit_batches=60", "trainer.epochs=3", "runtime.num_threads=1", "runtime.quiet=true"]
MIB = 2**20
_PAUSE = 3.0  # seconds between two looks at the memory; to count the pages of all processes takes a core some time


def commands(name: str, root: Path, workers: int) -> list[list[str]]:
    """Return the command lines of one way to train the runs, one after the other."""
    start = [sys.executable, "-m", "mtlrun"]
    words = [*COMMON, f"runtime.root={root}"]
    if name == "commands":
        return [
            [*start, *words, *(f"{key}={value}" for key, value in zip(VALUES, values, strict=True))]
            for values in itertools.product(*VALUES.values())
        ]
    swept = [f"{key}={','.join(values)}" for key, values in VALUES.items()]
    launcher = {
        "mtlrun": [],
        "basic": ["hydra/launcher=basic"],
        "joblib": ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"],
    }[name]
    return [[*start, "-m", *words, *swept, *launcher]]


class Memory:
    """The largest memory that a process below the given one has for itself, looked at now and then."""

    def __init__(self, pid: int) -> None:
        self.largest = 0
        self._pid, self._ended = pid, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(_PAUSE):
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(self._pid)
                for process in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        self.largest = max(self.largest, process.memory_full_info().uss)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def train(name: str, root: Path, workers: int) -> tuple[float, int]:
    """Train the runs in one way; return the seconds, and the largest memory of a process."""
    shutil.rmtree(root, ignore_errors=True)
    begun, largest = time.monotonic(), 0
    for command in commands(name, root, workers):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        memory = Memory(process.pid)
        if process.wait() != 0:
            sys.exit(f"failed: {' '.join(command)}")
        memory.close()
        largest = max(largest, memory.largest)
    return time.monotonic() - begun, largest


def records(root: Path) -> list[Record]:
    """Return the records below a folder."""
    found = [Record.read(path.parent) for path in root.glob("runs/*/record.json")]
    return [record for record in found if record is not None]


def limit(runs: Sequence[Record], workers: int) -> float:
    """Return the seconds that the runs take if nothing but them costs time."""
    return sum(sum(run.seconds.get(key, 0) for key in ("train", "test", "intervals")) for run in runs) / workers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ways", nargs="+", default=["mtlrun", "basic", "joblib", "commands"])
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    workers = available_cores()
    print(f"24 runs on {workers} cores")
    print("| way | seconds | limit / seconds | largest process, MiB | first step of later runs, s |")
    print("|---|---|---|---|---|")
    for _ in range(arguments.repeats):
        for name in arguments.ways:
            root = arguments.folder / name
            seconds, memory = train(name, root, workers)
            runs = records(root)
            assert [run.status for run in runs] == 24 * ["completed"]
            bound = limit(runs, workers)
            first = sorted(run.seconds["to_first_step"] for run in runs)[len(runs) // 2]
            print(f"| {name} | {seconds:.1f} | {bound / seconds:.2f} | {memory / MIB:.0f} | {first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
