"""Ways of use that only a GPU shows, each a command as a user types it, and what must come of it.

    python scripts/check_uses.py --device cuda

Several commands run side by side, in a folder of their own.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from results import Results

_TOY = ["dataset=kendall_toy", "trainer.batch_size=20", "trainer.baselines=false"]
_SCENES = ["dataset=scenes", "dataset.num_train=48", "dataset.num_val=8", "dataset.num_test=8", "backbone.width=0.25",
           "trainer.batch_size=16", "trainer.epochs=1", "trainer.baselines=false"]  # fmt: skip
_BOXES = ["+task@tasks.objects=detection", "tasks.objects.num_classes=3"]


class WrongError(Exception):
    """What came of a command is not what must come of it."""


@dataclass(frozen=True)
class Place:
    """Where a use runs: its folder, the device, and the moment by which it must have ended."""

    folder: Path
    device: str
    end: float

    def start(self, words: Sequence[str]) -> "subprocess.Popen[str]":
        """Start mtlrun with these words."""
        command = [sys.executable, "-m", "mtlrun", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, text=True, stdout=pipe, stderr=subprocess.STDOUT)

    def finish(self, process: "subprocess.Popen[str]", code: int = 0) -> str:
        """Wait for the end of a command, and return what it printed.

        Raises:
            WrongError: it ends with another exit code, or not in time.
        """
        try:
            printed, _ = process.communicate(timeout=max(0.1, self.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise WrongError("it did not end in time") from None
        if process.returncode != code:
            last = " / ".join(printed.strip().splitlines()[-3:])
            raise WrongError(f"exit code {process.returncode} in place of {code}: {last}")
        return printed

    def train(self, *words: str, device: str | None = None) -> dict[str, Any]:
        """Train, and return the newest record.

        Raises:
            WrongError: the run is not completed, or not on the device.
        """
        device = device or self.device
        self.finish(self.start([*words, f"runtime.device={device}", "runtime.quiet=true"]))
        record = self.records()[-1]
        if record["status"] != "completed" or not record["environment"]["device"].startswith(device):
            raise WrongError(f"status {record['status']} on {record['environment']['device']}")
        return record

    def records(self) -> list[dict[str, Any]]:
        """Return all records, the newest last."""
        paths = sorted(self.folder.glob("outputs/*/*/record.json"), key=lambda path: path.stat().st_mtime)
        return [json.loads(path.read_text()) for path in paths]


def default(place: Place) -> str:
    """Train what `mtlrun` trains without a word but the number of epochs; `auto` must choose the GPU."""
    place.finish(place.start(["trainer.epochs=2", "runtime.quiet=true"]))
    (record,) = place.records()
    chosen = record["environment"]["device"]
    if not chosen.startswith(place.device):
        raise WrongError(f"runtime.device=auto chose {chosen}")
    return f"{record['seconds']['train']:.1f} s of training, peak memory {record['peak_memory_mib']}"


def continued_elsewhere(place: Place) -> str:
    """Stop a run on the GPU after its first checkpoint, and continue it on the CPU."""
    words = [*_TOY, "weighting=rlw", "backbone.dropout=0.1", "trainer.epochs=400", "trainer.evaluate_every=20"]
    process = place.start([*words, f"runtime.device={place.device}"])
    while not list(place.folder.glob("outputs/*/*/checkpoints/last.pt")):
        if process.poll() is not None or time.monotonic() > place.end:
            place.finish(process, 130)
            raise WrongError("there was no checkpoint")
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    place.finish(process, 130)
    record = place.train(*words, device="cpu")
    if record["resumed"] != 1:
        raise WrongError(f"the record counts {record['resumed']} continuations")
    return f"stopped and continued, {record['steps']} steps"


def two_per_gpu(place: Place) -> str:
    """Train four runs, two at a time on the one GPU."""
    words = ["-m", *_TOY, "trainer.epochs=40", "seed=0,1,2,3", f"runtime.device={place.device}"]
    limit = "hydra.launcher.workers=2" if place.device == "cpu" else "hydra.launcher.runs_per_gpu=2"
    place.finish(place.start([*words, limit]))
    records = sorted(place.records(), key=lambda record: record["started"])
    statuses = [record["status"] for record in records]
    if statuses != ["completed"] * 4:
        raise WrongError(f"found {statuses}")
    if records[1]["started"] > records[0]["ended"]:  # to the second
        raise WrongError("the second run began after the end of the first")
    return "four runs completed, the first two side by side"


def deterministic(place: Place) -> str:
    """Train twice with deterministic algorithms, on maps, and compare all metrics."""
    words = [*_SCENES, "model=mtan", "trainer.deterministic=true"]
    first, second = (place.train(*words, f"runtime.study={study}") for study in ("first", "second"))
    if first["test"] != second["test"]:
        raise WrongError("two runs differ")
    return "two runs with the same metrics"


def evaluated_elsewhere(place: Place) -> str:
    """Train on the GPU, and evaluate the run on the CPU."""
    place.train(*_TOY, "trainer.epochs=3")
    (run,) = place.folder.glob("outputs/runs/*")
    place.finish(place.start(["evaluate", str(run)]))
    return "evaluated"


def trained(*words: str, needs: str | None = None) -> Callable[[Place], str]:
    """Return a use that trains with these words; one that needs a package is left out where that is missing."""

    def use(place: Place) -> str:
        if needs is not None and find_spec(needs) is None:
            return f"left out: {needs} is not installed"
        return f"{place.train(*words)['seconds']['train']:.1f} s of training"

    return use


USES: dict[str, Callable[[Place], str]] = {
    "a default run": default,
    "begun on the GPU, continued on the CPU": continued_elsewhere,
    "two runs per GPU": two_per_gpu,
    "detection, with pictures": trained(*_SCENES, *_BOXES, needs="pycocotools"),
    "deterministic algorithms, twice": deterministic,
    "evaluated on the CPU": evaluated_elsewhere,
    "images on the device": trained(*_SCENES, "dataset.cache=device"),
    "images by two workers": trained(*_SCENES, "runtime.num_workers=2"),
    "bf16, Gram matrix": trained(*_SCENES, "trainer.precision=bf16", "weighting=mgda"),
    "fp16, Gram matrix": trained(*_SCENES, "trainer.precision=fp16", "weighting=pcgrad"),
    "compiled, bf16": trained(*_SCENES, "trainer.compile=true", "trainer.precision=bf16"),
    "channels_last, rows": trained(*_SCENES, "trainer.channels_last=true", "weighting=graddrop"),
    "a graph of the step": trained(*_TOY, "trainer.epochs=20", "trainer.cuda_graph=true"),
    "activation checkpointing": trained(*_SCENES, "trainer.checkpoint_activations=true", "weighting=mgda"),
    "streamed rows": trained(*_SCENES, "trainer.stream_rows=true", "weighting=mgda"),
    "four seeds together": trained(*_TOY, "trainer.epochs=20", "trainer.vectorized_seeds=4"),
    "two passes": trained(*_SCENES, "trainer.two_pass=true", "weighting=mgda"),
}
#: Of which no use can be made on a CPU.
_GPU_ALONE = ("a graph of the step",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--uses", nargs="+", default=list(USES), choices=list(USES), metavar="USE")
    parser.add_argument("--together", type=int, default=4, help="how many run side by side")
    parser.add_argument("--seconds", type=float, default=600.0, help="time budget")
    parser.add_argument("--json", help="write the results to this file as well")
    arguments = parser.parse_args()
    results, end = Results(arguments.json), time.monotonic() + arguments.seconds
    results.table("Ways of use", ["use", "outcome", "seconds", "what came of it"])
    failed = []

    def make(name: str, folder: Path) -> tuple[str, str, float, str]:
        begin = time.monotonic()
        folder.mkdir()
        try:
            found = USES[name](Place(folder, arguments.device, end))
            outcome = "left out" if found.startswith("left out") else "passed"
        except (WrongError, KeyError, ValueError, IndexError) as error:
            outcome, found = "FAILED", f"{type(error).__name__}: {error}"
        return name, outcome, time.monotonic() - begin, found

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    uses = [use for use in arguments.uses if arguments.device != "cpu" or use not in _GPU_ALONE]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(arguments.together) as pool:
        made = [pool.submit(make, use, Path(name) / str(number)) for number, use in enumerate(uses)]
        for future in made:
            use, outcome, seconds, found = future.result()
            results.row(use, outcome, seconds, found.replace("|", "/")[:400])
            failed += [use] if outcome == "FAILED" else []
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
