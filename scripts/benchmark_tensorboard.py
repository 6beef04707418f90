"""TensorBoard with a study of 100 runs: how large the event files are, and how long its pages take in Chromium.

    python scripts/benchmark_tensorboard.py                        # 720 steps, as a run of 30 epochs on multidigits
    python scripts/benchmark_tensorboard.py --steps 7200           # ten times as long

The files are written by the observers of a run, with numbers of no meaning: 25 methods, 4 seeds, 2 tasks, a point of
the training curves every 10 steps and 30 evaluations. A page is there when its last part stands and the last answer
of the server has arrived, with nothing asked for in the two seconds after.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "comparison")]

from browser import Browser  # noqa: E402
from synthetic import make_study, write_records  # noqa: E402

from mtlrun.comparison.event_summary import SUMMARY, summarize  # noqa: E402
from mtlrun.config.options import shipped  # noqa: E402
from mtlrun.records.record import Record  # noqa: E402
from mtlrun.training.observers import MetricsFile, TensorBoard  # noqa: E402

METHODS, SEEDS, EVALUATIONS, LOG_EVERY = 25, 4, 30, 10
METRICS = ("accuracy", "balanced_accuracy", "ece", "f1", "log_loss", "loss", "mcc")
# Each page, and a text that is on it once it shows something.
PAGES = {"timeseries": "with_band", "hparams": "Trial ID", "custom_scalars": "methods: mean and band"}


class _Waiting(Browser):
    """A browser that knows what is still being loaded."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.call("Network.enable")
        self.loading: set[str] = set()
        self.loaded_at = time.monotonic()

    def wait_until_loaded(self) -> None:
        """Return two seconds after the last request was answered; one that is never answered is waited for longer."""
        while time.monotonic() < self.loaded_at + (20 if self.loading else 2):
            time.sleep(0.05)
            self.evaluate("1")  # events come with the answer

    def _note(self, event: dict) -> None:
        super()._note(event)
        request, method = event.get("params", {}).get("requestId"), event.get("method")
        if method == "Network.requestWillBeSent":
            self.loading.add(request)
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            self.loading.discard(request)
            self.loaded_at = time.monotonic()


def write_run(record: Record, folder: Path, steps: int) -> None:
    """Write what a run of so many steps logs."""
    observers = [MetricsFile(folder), TensorBoard(folder)]
    draw = random.Random(record.run_id)
    tasks = list(record.main_metrics)
    tags = [f"{kind}/{task}" for kind in ("weight", "grad_norm", "lr") for task in tasks]
    tags += [*(f"train/{task}/loss" for task in tasks), "grad_cosine/left_right", "grad_conflict", "lr/shared"]
    for observer in observers:
        observer.load_state_dict({})
        observer.started(record, 0)
    due = {round(number * steps / EVALUATIONS) for number in range(1, EVALUATIONS + 1)}
    for step in range(1, steps + 1):
        if step % LOG_EVERY == 0:
            values = {tag: draw.random() for tag in tags}
            for observer in observers:
                observer.trained(step, 1, values)
        if step in due:
            metrics = {task: {metric: draw.random() for metric in METRICS} for task in tasks}
            for observer in observers:
                observer.validated(step, 1, metrics, False)
    for observer in observers:
        observer.tested(steps, record.test)
        observer.closed()


def size(paths: list[Path]) -> str:
    """Return the mean and the sum of the sizes of files."""
    sizes = [path.stat().st_size for path in paths]
    return f"{len(sizes)} files of {sum(sizes) / len(sizes) / 1000:.0f} kB, {sum(sizes) / 1e6:.1f} MB together"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=720, help="of each run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = Path(scratch, "study")
        methods = {name: {"accuracy": 0.9} for name in shipped("weighting")[:METHODS]}
        records = make_study(dict.fromkeys(methods, 0.9), seeds=SEEDS)
        for record in records:
            record.test = {task: {metric: random.random() for metric in METRICS} for task in record.main_metrics}
            record.val = record.test
            record.directions = {task: dict.fromkeys(METRICS, "max") for task in record.main_metrics}
            record.steps = args.steps
        for record, folder in zip(records, write_records(study, records), strict=True):
            write_run(record, folder, args.steps)
        print(f"runs: {size(list(study.glob('*/events.*')))}")
        start = time.process_time()
        summarize([study])
        took = time.process_time() - start
        print(f"mtlrun tensorboard: {took:.1f} s of CPU time, for {size(list(study.glob('*/metrics.jsonl')))}")
        print(f"methods: {size(list(study.glob(f'{SUMMARY}/*/events.*')))}")
        look(study, Path(scratch))


def look(study: Path, scratch: Path) -> None:
    """Print how long TensorBoard and its pages take."""
    start = time.monotonic()
    log = scratch / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(study), "--port", "0", "--host", "localhost"]
    with open(log, "w") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            while (found := re.search(r"at (http://localhost:\d+/)", log.read_text())) is None:
                time.sleep(0.05)
            print(f"TensorBoard answers after {time.monotonic() - start:.1f} s")
            while len(json.loads(urllib.request.urlopen(f"{found[1]}data/runs").read())) < METHODS * (SEEDS + 1):
                time.sleep(0.1)
            print(f"all runs are read after {time.monotonic() - start:.1f} s")
            with _Waiting(scratch) as browser:
                for page, shown in PAGES.items():
                    browser.open("about:blank")
                    browser.loading.clear()
                    start = browser.loaded_at = time.monotonic()
                    browser.open(f"{found[1]}#{page}")
                    browser.wait_for_texts(shown)
                    browser.loaded_at = time.monotonic()
                    browser.wait_until_loaded()
                    print(f"{page}: {browser.loaded_at - start:.1f} s, {len(browser.loading)} unanswered", flush=True)
                    if browser.errors:
                        print(browser.errors)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
