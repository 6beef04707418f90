"""What a dataset learned from its data: learned.json encodes rows as the dataset did; the record and the screen."""

import binascii
import csv
import json
import math
from datetime import date
from pathlib import Path

import numpy
import pytest
import torch
from helpers import QUICK, read_record, run_folders
from PIL import Image

from mtlrun.datasets.table import Table
from mtlrun.setup.prepare import prepare

OF_TABLES = [option for option in QUICK if not option.startswith("dataset")]
LOUD = [option for option in OF_TABLES if option != "runtime.quiet=true"]
TASKS = [
    "+task@tasks.price=regression", "+task@tasks.place=regression", "+task@tasks.kind=classification",
    "+task@tasks.sold=binary", "+task@tasks.grade=ordinal", "+task@tasks.rooms=count", "+task@tasks.has=multilabel",
    "+task@tasks.tags=multilabel",
]  # fmt: skip
KEYS = [
    "dataset=csv", "dataset.path=houses.csv", "dataset.dates=[built]", "dataset.exclude=[note]",
    "+dataset.targets.place=[lat,lon]", "+dataset.targets.has=[pool,yard]",
    "tasks.place.num_outputs=2", "+dataset.classes.grade=[low,mid,high]", "dataset.label_separator=;",
    "dataset.split_seed=1",
]  # fmt: skip


def write_houses(rows=80):
    """Write a table with all kinds of columns and targets, some cells empty, some texts rare."""
    generator = numpy.random.default_rng(0)

    def often(cell):
        return "" if generator.random() < 0.1 else cell

    with open("houses.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([
            "area", "same", "city", "built", "heat", "nothing", "note", "price", "lat", "lon", "kind", "sold", "grade",
            "rooms", "pool", "yard", "tags",
        ])  # fmt: skip
        for row in range(rows):
            writer.writerow([
                often(f"{generator.normal(100, 30):.3f}"), "7", often(generator.choice(["Ulm", "Rom", "Bonn"])),
                often(date.fromordinal(725000 + int(generator.integers(9000))).strftime("%d.%m.%Y")),
                f"rare {row}" if row % 20 == 3 else generator.choice(["gas", "oil"]), "", "a note",
                often(f"{generator.normal(3e5, 1e5):.2f}"), f"{generator.normal(50, 2):.4f}",
                f"{generator.normal(9, 1):.4f}",
                generator.choice(["villa", "flat", "house"]), often(generator.choice(["yes", "no"])),
                generator.choice(["high", "low", "mid"]), str(generator.integers(9)),
                generator.choice(["yes", "no"]), often(generator.choice(["yes", "no"])),
                often(generator.choice(["a;b", "b", "c;a", ";"])),
            ])  # fmt: skip


def encode_inputs(learned, row):
    """Return the features of a row of texts: an independent reading of learned.json."""
    features = []
    for name, column in learned["columns"].items():
        cell = row[name] or None
        if column["kind"] == "text":
            if "buckets" in column and cell is not None:
                cell = binascii.crc32(cell.encode("utf-8")) % column["buckets"]
            if learned["category_encoding"] == "one_hot":
                features += [float(cell == category) for category in column["categories"]]
            else:
                known = cell in column["categories"]
                features.append(1.0 + column["categories"].index(cell) if known else 0.0)
            continue
        number = 0.0
        if cell is not None:
            if column["kind"] == "date":
                day, month, year = map(int, cell.split("."))
                assert column["format"] == "%d.%m.%Y"
                cell = (date(year, month, day) - date(1970, 1, 1)).days
            if name in learned["constant"]:
                number = 0.0
            elif learned["scale"] == "standard":
                number = (float(cell) - column["mean"]) / column["std"]
            elif learned["scale"] == "robust":
                z = (float(cell) - column["median"]) / column["spread"]
                number = z / math.sqrt(1 + (z / 3) ** 2)
            else:
                number = float(numpy.interp(float(cell), column["numbers"], column["normals"]))
        features += [number, float(cell is None)] if column["marks_empty"] else [number]
    return features


def encode_targets(task, row):
    cells = [row[column] or None for column in task["columns"]]
    kind, labels = task["reads"], list(task.get("labels", ()))
    if kind in ("numbers", "counts"):
        numbers = [float("nan") if cell is None else float(cell) for cell in cells]
        return numbers if len(numbers) > 1 else numbers[0]
    if kind != "indicators":
        return -1 if cells[0] is None else labels.index(cells[0])
    if "cells" in task:
        return [float("nan") if cell is None else known[cell] for cell, known in zip(cells, task["cells"], strict=True)]
    return [float("nan") if cells[0] is None else float(label in cells[0].split(";")) for label in labels]


def check_inputs(folder):
    """Assert that the inputs of all splits are what learned.json makes of the rows."""
    learned, ids = json.loads((folder / "learned.json").read_text()), json.loads((folder / "splits.json").read_text())
    rows = list(csv.DictReader(Path("houses.csv").read_text().splitlines()))
    dataset = prepare(read_record(folder)["config"]).dataset
    for name in ("train", "val", "test"):
        encoded = [encode_inputs(learned["inputs"], rows[number - 2]) for number in ids[name]]
        inputs = torch.tensor(encoded, dtype=torch.float64)
        torch.testing.assert_close(inputs.float(), dataset.split(name).inputs, rtol=0, atol=1e-7)


def test_indices_hashes_and_other_scales_are_in_learned_json_too(mtlrun):
    write_houses()
    options = ["backbone=embedding_mlp", "backbone.hidden=[8]", "+dataset.hash_buckets={city:3}"]
    for scale, more in (("quantile", options), ("robust", ["+dataset.hash_buckets={heat:3}"])):
        code, _, err = mtlrun(*KEYS, *TASKS, *OF_TABLES, f"dataset.scale={scale}", *more)
        assert code == 0, err
    for folder in run_folders():
        check_inputs(folder)
    records = [read_record(folder) for folder in run_folders()]
    encodings = {record["config"]["dataset"]["category_encoding"]: record for record in records}
    assert set(encodings) == {"index", "one_hot"}
    learned = encodings["index"]["learned"]["inputs"]
    assert learned["features"][:4] == ["area", "area is empty", "same", "city"]
    buckets = {binascii.crc32(city.encode()) % 3 for city in ("Ulm", "Rom", "Bonn")}
    assert learned["columns"]["city"]["categories"] == [*sorted(buckets), None]


def test_rows_are_encoded_by_learned_json_alone_as_by_the_dataset(mtlrun):
    write_houses()
    code, out, err = mtlrun(*KEYS, *TASKS, *LOUD)
    assert code == 0, err
    (folder,) = run_folders()
    learned, ids = json.loads((folder / "learned.json").read_text()), json.loads((folder / "splits.json").read_text())
    record = read_record(folder)
    rows = list(csv.DictReader(Path("houses.csv").read_text().splitlines()))
    dataset = prepare(record["config"]).dataset
    check_inputs(folder)
    for name in ("train", "val", "test"):
        split, of_split = dataset.split(name), [rows[number - 2] for number in ids[name]]
        for task, entry in learned["targets"].items():
            targets = torch.tensor([encode_targets(entry, row) for row in of_split], dtype=torch.float64)
            torch.testing.assert_close(
                targets.to(split.targets[task].dtype), split.targets[task], rtol=0, atol=0, equal_nan=True
            )
    assert learned["inputs"]["features"] == dataset.features
    assert record["learned"] == {section: value for section, value in learned.items() if section != "model"}

    assert {key: learned["inputs"][key] for key in ("constant", "excluded", "empty")} == {
        "constant": ["same"], "excluded": ["note"], "empty": ["nothing"]
    }  # fmt: skip
    in_training = [rows[number - 2] for number in ids["train"]]
    kinds = learned["targets"]["kind"]["labels"]
    assert {label: counts["train"] for label, counts in kinds.items()} == {
        label: sum(row["kind"] == label for row in in_training) for label in ("flat", "house", "villa")
    }
    assert list(learned["targets"]["grade"]["labels"]) == ["low", "mid", "high"]
    assert learned["targets"]["sold"]["positive"] == "yes"
    listing = ", ".join(f"{label} ({counts['train']})" for label, counts in kinds.items())
    assert f"kind: {listing} in training" in out
    sold = {label: counts["train"] for label, counts in learned["targets"]["sold"]["labels"].items()}
    assert f"sold: no ({sold['no']}), yes ({sold['yes']}, positive) in training" in out
    for task, columns in (("price", ["price"]), ("place", ["lat", "lon"])):
        numbers = numpy.array([[float(row[column] or "nan") for column in columns] for row in in_training])
        assert learned["tasks"][task]["means"] == pytest.approx(numpy.nanmean(numbers, axis=0), rel=1e-12)
        assert learned["tasks"][task]["stds"] == pytest.approx(numpy.nanstd(numbers, axis=0), rel=1e-12)
    mean, std = learned["tasks"]["price"]["means"][0], learned["tasks"]["price"]["stds"][0]
    assert f"price is learned in standard deviations (mean {mean:.6g}, standard deviation {std:.6g})" in out
    assert learned["tasks"]["rooms"]["mean"] == pytest.approx(numpy.mean([int(row["rooms"]) for row in in_training]))


def test_a_wide_table_leaves_the_record_short(mtlrun):
    names = [f"column_{index}" for index in range(3000)]
    numbers = numpy.random.default_rng(0).normal(size=(30, len(names)))
    lines = [",".join([*names, "y"]), *(",".join([*(f"{x:.2f}" for x in row), f"{row[0]:.2f}"]) for row in numbers)]
    Path("wide.csv").write_text("\n".join(lines))
    code, _, err = mtlrun("dataset=csv", "dataset.path=wide.csv", "+task@tasks.y=regression", *OF_TABLES)
    assert code == 0, err
    (folder,) = run_folders()
    assert len(json.loads((folder / "learned.json").read_text())["inputs"]["columns"]) == 3000
    assert set(read_record(folder)["learned"]) == {"targets", "tasks"}
    assert (folder / "record.json").stat().st_size < 50_000


def test_more_labels_than_fit_a_line_are_counted(caplog):
    lines = ["x,k", *(f"{row},{row % 11}" for row in range(110))]
    Path("many.csv").write_text("\n".join(lines))
    caplog.set_level("INFO", logger="mtlrun")
    table = Table("many.csv", tasks=["k"], kinds=["mtlrun.tasks.Classification"], fractions=[0.6, 0.2, 0.2])
    assert "k: 11 labels" in caplog.messages
    assert sum(counts["train"] for counts in table.label_counts()["k"].values()) == len(table.rows["train"])


def test_the_pixels_of_images_are_known_too(mtlrun):
    Path("photos").mkdir()
    for index in range(20):
        Image.new("L", (8, 8), index).save(f"photos/{index}.png")
    Path("labels.csv").write_text("\n".join(["file,k", *(f"{index}.png,{'ab'[index % 2]}" for index in range(20))]))
    keys = ["dataset.root=photos", "dataset.labels=labels.csv", "dataset.size=8", "dataset.channels=1"]
    code, _, err = mtlrun("dataset=images", *keys, "+task@tasks.k=classification", *OF_TABLES)
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["learned"]["inputs"] == {
        "channels": 1, "size": 8, "pixel_range": [0, 255], "normalize": "centered", "means": [0.5], "stds": [0.5]
    }  # fmt: skip
    assert list(record["learned"]["targets"]["k"]["labels"]) == ["a", "b"]


def test_a_rerun_replaces_what_an_earlier_one_learned(mtlrun):
    code, _, err = mtlrun(*QUICK)
    assert code == 0, err
    (folder,) = run_folders()
    first = (folder / "learned.json").read_text()
    assert list(json.loads(first)) == ["model"]  # this dataset learns nothing
    (folder / "learned.json").write_text("{}")
    assert mtlrun(*QUICK, "runtime.rerun=true")[0] == 0
    assert (folder / "learned.json").read_text() == first
