"""Samples per second of the loader alone and of whole epochs, and how long the training waits for batches.

    python scripts/benchmark_loading.py --device cuda --workers 0 4 8
    python scripts/benchmark_loading.py --images 500 --rows 20000 --words backbone=resnet18 backbone.width=0.1

JPEG files of noise are written first, scaled to 64 x 64 pixels, and trained on by the default network; a table of 50
numbers has two targets. `loader` is an epoch of batches that are brought to the device and thrown away, `epoch` one of
training, and `waiting` the fraction of it in which the training waits for batches, as the record counts it. Seconds are
those that pass: with workers, processor time of this process alone would be wrong.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy
import torch
from PIL import Image
from results import Results

from mtlrun.config.compose import compose
from mtlrun.errors import MtlrunError
from mtlrun.setup.environment import keep_solvers_on_one_thread
from mtlrun.setup.prepare import prepare
from mtlrun.training.trainer import Trainer


def write_images(folder: Path, count: int, side: int = 96) -> list[str]:
    """Write JPEG files and the table of their labels; return the words that name them."""
    random = numpy.random.default_rng(0)
    lines = ["file,shape,brightness"]
    for number in range(count):
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=numpy.uint8)
        Image.fromarray(coarse).resize((side, side)).save(folder / f"{number}.jpg", quality=90)
        lines.append(f"{number}.jpg,{'abcd'[number % 4]},{coarse.mean():.3f}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return ["dataset=images", f"dataset.root={folder}", f"dataset.labels={folder}/labels.csv",
            "dataset.predict=[shape,brightness]", "trainer.batch_size=128"]  # fmt: skip


def write_table(path: Path, rows: int, columns: int = 50) -> list[str]:
    """Write a CSV file of numbers with two targets; return the words that name it."""
    numbers = numpy.random.default_rng(0).standard_normal((rows, columns))
    targets = numpy.stack([numbers[:, :5].sum(axis=1), numbers[:, 5:9].sum(axis=1)], axis=1)
    header = ",".join([*(f"x{i}" for i in range(columns)), "first", "second"])
    numpy.savetxt(path, numpy.concatenate([numbers, targets], axis=1), "%.4g", ",", header=header, comments="")
    return ["dataset=csv", f"dataset.path={path}", "dataset.predict=[first,second]", "trainer.batch_size=1024"]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(words: list[str], folder: Path, rounds: int, deadline: float) -> tuple[int, float, float, float]:
    """Return the samples of an epoch, the seconds of the loader and of an epoch, and the fraction spent waiting."""
    trainer = Trainer(prepare(compose(words)), folder=folder)
    device, count = trainer.parts.device, trainer.parts.loaders["train"].num_samples
    loader, epochs, fractions = [], [], []
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() > deadline:
            break
        synchronize(device)
        begin = time.perf_counter()
        for batch, _ in trainer.batches():
            trainer.load(batch)
        synchronize(device)
        middle = time.perf_counter()
        waited = trainer.progress.waiting
        for batch, meta_batch in trainer.steps_of_epoch():
            trainer.train_step(batch, meta_batch)
        synchronize(device)
        end = time.perf_counter()
        if number > 0:  # the first one warms up, and starts workers
            loader.append(middle - begin)
            epochs.append(end - middle)
            fractions.append((trainer.progress.waiting - waited) / (end - middle))
    return count, *(statistics.median(values) for values in (loader, epochs, fractions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0])
    parser.add_argument("--words", nargs="+", default=[], help="overrides for the images, such as backbone=resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time budget")
    parser.add_argument("--json", help="write the results to this file as well")
    arguments = parser.parse_args()
    keep_solvers_on_one_thread()
    end, results = time.monotonic() + arguments.seconds, Results(arguments.json)
    common = ["trainer.epochs=1000", f"runtime.device={arguments.device}", "trainer.baselines=false"]
    common += ["runtime.predictions=none", "trainer.evaluate_every=1000"]
    header = ["data", "cache", "workers", "loader, samples/s", "epoch, samples/s", "to the first row", "waiting"]
    results.table("Loading and whole epochs", header)
    caches = ["memory"] if arguments.device == "cpu" else ["memory", "device"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkpoints").mkdir()
        images = [*write_images(folder, arguments.images), *arguments.words]
        table = write_table(folder / "table.csv", arguments.rows)
        rows = [("images", images, cache, 0) for cache in caches]
        rows += [("images", images, "none", workers) for workers in arguments.workers]
        rows += [("table", table, cache, 0) for cache in caches]
        first: dict[str, float] = {}
        for kind, words, cache, workers in rows:
            label = f"{kind}, cache={cache}, {workers} workers"
            if time.monotonic() > end:
                results.note(f"The time budget ended before {label}")
                continue
            words = [*words, *common, f"dataset.cache={cache}", f"runtime.num_workers={workers}"]
            try:
                count, loader, epoch, fraction = measure(words, folder / "checkpoints", arguments.rounds, end)
            except (MtlrunError, RuntimeError) as error:
                results.note(f"{label}: {str(error).splitlines()[0][:200]}")
                continue
            first.setdefault(kind, epoch)
            results.raw[label] = {"samples": count, "loader": loader, "epoch": epoch, "waiting": fraction}
            speed = first[kind] / epoch
            results.row(kind, cache, workers, f"{count / loader:,.0f}", f"{count / epoch:,.0f}", speed, fraction)


if __name__ == "__main__":
    main()
