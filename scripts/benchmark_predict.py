"""Time `mtlrun predict` on a large table, and a bare loop of pandas, NumPy and PyTorch on the same rows.

    python scripts/benchmark_predict.py --rows 1000000

Both read the CSV file, encode numbers and categories, send the rows through the same network, and write predictions and
probabilities as CSV. The loop holds the whole table in memory, checks no cell and knows the encoding by heart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import pandas
import torch

from mtlrun import compose, run
from mtlrun.deployment.predict import write_predictions
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.tables import TableReader

NUMBERS, TEXTS = 12, 3
TRAINED_ROWS = 2000


def main() -> None:
    """Write a table, train on its first rows, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_table(folder / "train.csv", TRAINED_ROWS)
        _write_table(folder / "new.csv", rows)
        predictor = Predictor.load(_train(folder), device="cpu")
        start = time.perf_counter()
        write_predictions(predictor, TableReader(str(folder / "new.csv"), predictor.encoder), folder / "a.csv", "csv")
        ours = time.perf_counter() - start
        start = time.perf_counter()
        _bare_loop(predictor, folder / "new.csv", folder / "b.csv")
        bare = time.perf_counter() - start
        _compare(folder / "a.csv", folder / "b.csv")
        few, many = (_peak_memory(predictor.folder, folder / name, folder) for name in ("train.csv", "new.csv"))
        size = (folder / "new.csv").stat().st_size / 2**20
    print(f"rows: {rows:,}; torch threads: {torch.get_num_threads()}")
    print(f"mtlrun predict: {ours:.1f} s ({rows / ours:,.0f} rows/s)")
    print(
        f"memory of the command at its peak: {many:.0f} MiB, for a file of {size:.0f} MiB; {few:.0f} MiB for few rows"
    )
    print(f"bare loop: {bare:.1f} s ({rows / bare:,.0f} rows/s); ratio {ours / bare:.2f}")


def _peak_memory(run: Path, table: Path, folder: Path) -> float:
    """Return the most memory, MiB, that the command has in a process of its own; Linux."""
    arguments = ["predict", run, "--input", table, "--out", folder / "c.csv", "--device", "cpu"]
    program = (
        "import sys; from mtlrun.cli.main import dispatch; dispatch(sys.argv[1:])\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import gc; gc.disable(); {program}", *map(str, arguments)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1]) / 2**10


def _write_table(path: Path, rows: int) -> None:
    generator = numpy.random.default_rng(rows)
    frame = pandas.DataFrame({f"x{index}": generator.normal(size=rows).round(5) for index in range(NUMBERS)})
    for index in range(TEXTS):
        frame[f"t{index}"] = generator.choice(["red", "green", "blue", "grey"], rows)
    frame["price"] = (frame["x0"] * 3 + frame["x1"]).round(4)
    frame["kind"] = numpy.where(frame["x2"] > 0, "up", "down")
    frame.to_csv(path, index=False)


def _train(folder: Path) -> Path:
    config = compose([
        "dataset=csv", "dataset.scale=standard", f"dataset.path={folder / 'train.csv'}", "+task@tasks.price=regression",
        "+task@tasks.kind=binary", "backbone=mlp", "trainer.epochs=1", "runtime.quiet=true",
        f"runtime.root={folder / 'outputs'}", "runtime.num_threads=1",
    ])  # fmt: skip
    run(config)
    return next((folder / "outputs").glob("**/record.json")).parent


def _bare_loop(predictor: Predictor, path: Path, out: Path) -> None:
    """Predict as somebody would by hand who knows the data."""
    learned = json.loads((predictor.folder / "learned.json").read_text())
    columns = learned["inputs"]["columns"]
    frame = pandas.read_csv(path)
    parts = []
    for name, entry in columns.items():
        if entry["kind"] == "number":
            parts.append((((frame[name] - entry["mean"]) / entry["std"]).to_numpy("float32"))[:, None])
        else:
            parts.append((frame[name].to_numpy()[:, None] == numpy.array(entry["categories"])).astype("float32"))
    inputs = torch.from_numpy(numpy.concatenate(parts, axis=1))
    price, chance = [], []
    mean, std = learned["tasks"]["price"]["means"][0], learned["tasks"]["price"]["stds"][0]
    with torch.inference_mode():
        for start in range(0, len(inputs), 4096):
            found = predictor.model(inputs[start : start + 4096]).predictions
            price.append(found["price"].squeeze(1).double() * std + mean)
            chance.append(found["kind"].squeeze(1).double().sigmoid())
    chances = torch.cat(chance).numpy()
    pandas.DataFrame({
        "sample": numpy.arange(2, len(frame) + 2), "price.prediction": torch.cat(price).numpy(),
        "kind.prediction": numpy.where(chances >= 0.5, "up", "down"), "kind.probability.up": chances,
    }).to_csv(out, index=False)  # fmt: skip


def _compare(one: Path, other: Path) -> None:
    """Raise AssertionError unless both files have the same predictions."""
    left, right = pandas.read_csv(one), pandas.read_csv(other)
    assert list(left.columns) == list(right.columns)
    for name in left:
        if left[name].dtype.kind in "if":
            assert numpy.allclose(left[name], right[name], rtol=1e-5, atol=1e-6), name
        else:
            assert (left[name] == right[name]).all(), name


if __name__ == "__main__":
    main()
