"""A small table, and runs on it."""

import csv
from pathlib import Path

import numpy

from mtlrun.cli.main import dispatch

TABLE = ["dataset=csv", "dataset.path=houses.csv", "backbone=mlp", "backbone.hidden=[8]", "trainer.epochs=3",
         "trainer.batch_size=32", "trainer.baselines=false", "runtime.quiet=true", "runtime.study=houses"]  # fmt: skip
ALL = "dataset.predict=[price,kind,sold]"


def write_table(path):
    """Write 300 houses; every fifth has no kind."""
    generator = numpy.random.default_rng(0)
    x, y, z = generator.normal(size=(3, 300))
    columns = {
        "x": x,
        "y": y,
        "z": z,
        "price": 500 + 40 * (x + y),
        "kind": numpy.where(z > 0, "house", numpy.where(z > -1, "flat", "hut")),
        "sold": numpy.where(z + 0.5 * generator.normal(size=300) > 0, "yes", "no"),
    }
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for index, row in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow(["" if name == "kind" and index % 5 == 0 else cell
                             for name, cell in zip(columns, row, strict=True)])  # fmt: skip


def train(*words):
    """Train a run on the table in the current folder."""
    assert dispatch([*TABLE, *words]) == 0


def find(pattern, root="outputs/houses"):
    """Return the only run folder of a pattern."""
    (folder,) = [path.parent for path in Path(root).glob(f"**/{pattern}/record.json")]
    return folder
