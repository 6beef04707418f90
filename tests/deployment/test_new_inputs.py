"""New rows and images are predicted as those of the run were, from a copied folder, without the data."""

import shutil
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from helpers import QUICK, run_folders
from PIL import Image

from mtlrun.datasets.tables.reading.stream import CsvStream
from mtlrun.deployment.images import ImageReader
from mtlrun.deployment.predict import write_predictions
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.tables import TableReader

OF_TABLES = [option for option in QUICK if not option.startswith(("dataset", "backbone"))]
TASKS = ["+task@tasks.price=regression", "+task@tasks.kind=classification", "+task@tasks.sold=binary",
         "+task@tasks.grade=ordinal", "+task@tasks.rooms=count", "+task@tasks.tags=multilabel",
         "dataset.label_separator=;"]  # fmt: skip
SPLIT = "dataset.exclude=[note]"
VARIANTS = [
    ["backbone=mlp", "backbone.hidden=[8]", "dataset.id_column=id"],
    ["backbone=embedding_mlp", "backbone.numbers=piecewise_linear", "dataset.hash_buckets={city: 3}",
     "dataset.scale=quantile", "dataset.min_category_rows=4"],
    ["backbone=mlp", "backbone.hidden=[8]", "dataset.scale=robust", "dataset.decimal=','", "dataset.missing=[none,'']",
     "dataset.exclude=[note,id]"],
]  # fmt: skip


def write_houses(path="houses.csv", rows=90):
    """Write a table with all kinds of columns and targets, some cells empty, some texts rare."""
    generator = numpy.random.default_rng(0)

    def often(cells):
        return [None if generator.random() < 0.1 else cell for cell in cells]

    area = generator.normal(100, 20, rows)
    frame = pandas.DataFrame({
        "id": [f"h{row}" for row in range(rows)],
        "area": often(area),
        "age": generator.integers(0, 99, rows),
        "city": often(generator.choice(["Ulm", "Bonn, old", "K\u00f6ln", "Trier"], rows, p=[0.5, 0.3, 0.15, 0.05])),
        "built": often(pandas.Series(generator.integers(0, 9999, rows)).map(
            lambda day: str((pandas.Timestamp("1990-01-01") + pandas.Timedelta(days=day)).date()))),
        "floor": generator.integers(0, 3, rows),
        "note": "n",
        "price": often(area * 3 + generator.normal(0, 9, rows)),
        "kind": often(numpy.where(area > 110, "villa", numpy.where(area > 90, "house", "flat"))),
        "sold": often(numpy.where(area > 100, "yes", "no")),
        "grade": often(numpy.where(area > 110, "high", numpy.where(area > 90, "mid", "low"))),
        "rooms": generator.poisson(3, rows),
        "tags": often(numpy.where(area > 100, "old;red", "old")),
    })  # fmt: skip
    frame.to_csv(path, index=False)
    return frame


@pytest.fixture
def trained(mtlrun):
    """Return a function that trains on houses.csv, and returns the copied folder and what the run predicted."""

    def train(*overrides):
        shutil.rmtree("outputs", ignore_errors=True)
        code, _, err = mtlrun("dataset=csv", "dataset.path=houses.csv", SPLIT, "dataset.dates=[built]", *OF_TABLES,
                              "dataset.categorical=[floor]", *TASKS, *overrides)  # fmt: skip
        assert code == 0, err
        (folder,) = run_folders()
        copied = Path("copied")
        shutil.rmtree(copied, ignore_errors=True)
        shutil.move(folder, copied)
        return copied, pandas.read_csv(copied / "predictions.csv").drop(columns="split")

    return train


def check_equal(written, expected):
    """Assert that predictions are those that the run wrote for its samples of validation and test."""
    expected = expected[[name for name in expected if ".target" not in name]].set_index("sample")
    found = written.set_index("sample")
    assert list(found.columns) == list(expected.columns)
    found = found.loc[expected.index]
    for name in found:
        if name.split(".")[1] == "prediction" and name.split(".")[0] not in ("price", "rooms"):
            assert found[name].equals(expected[name]), name
        else:
            assert numpy.allclose(found[name], expected[name], rtol=1e-6, atol=1e-6), name


def test_rows_of_training_are_predicted_as_the_run_did(trained, monkeypatch):
    monkeypatch.setattr(CsvStream, "block_size", 1500)
    for variant in VARIANTS:
        frame = write_houses()
        if "dataset.decimal=','" in variant:
            frame.to_csv("houses.csv", index=False, sep=";", decimal=",", na_rep="none")
        folder, expected = trained(*variant)
        predictor = Predictor.load(folder, device="cpu")
        summary = write_predictions(
            predictor, TableReader("houses.csv", predictor.encoder), Path("out.csv"), "csv", batch_size=7
        )
        assert (summary.samples, summary.wrong) == (len(frame), 0)
        written = pandas.read_csv("out.csv")
        check_equal(written, expected)
        # The same from memory.
        inputs, wrong = predictor.encoder.encode(frame)
        assert not wrong
        prices = predictor.predict(inputs)["price"].prediction
        assert numpy.allclose(prices, written["price.prediction"], rtol=1e-6)


def test_images_are_predicted_as_the_run_did(mtlrun, tmp_path):
    generator = numpy.random.default_rng(0)
    Path("photos/deep").mkdir(parents=True)
    labels = []
    for index in range(40):
        kind = index % 2
        pixels = generator.integers(0, 100, (12, 16, 3)) + 100 * kind
        name = f"{'deep/' if index % 3 else ''}{index}.{'png' if index % 4 else 'jpg'}"
        Image.fromarray(pixels.astype("uint8")).save(f"photos/{name}")
        labels.append((name, "ab"[kind], index / 7))
    pandas.DataFrame(labels, columns=["file", "kind", "size"]).to_csv("labels.csv", index=False)
    code, _, err = mtlrun("dataset=images", "dataset.root=photos", "dataset.labels=labels.csv", "dataset.size=8",
                          "dataset.channels=1", "backbone=mlp", "backbone.hidden=[8]", "dataset.id_column=file",
                          *OF_TABLES, "+task@tasks.kind=classification", "+task@tasks.size=regression")  # fmt: skip
    assert code == 0, err
    (folder,) = run_folders()
    expected = pandas.read_csv(folder / "predictions.csv").drop(columns="split")
    shutil.copytree(folder, "copied")
    predictor = Predictor.load("copied", device="cpu")
    Path("photos/broken.png").write_bytes(b"no image")
    names = [*(name for name, *_ in labels), "broken.png"]
    reader = ImageReader([Path("photos") / name for name in names], names, predictor.encoder)
    summary = write_predictions(predictor, reader, Path("out.csv"), "csv", batch_size=7)
    assert (summary.samples, summary.wrong) == (41, 1)
    assert "broken.png is not a readable image" in summary.problems[0]
    written = pandas.read_csv("out.csv")
    check_equal(written, expected)
    assert written.iloc[-1].notna().tolist() == [True] + [False] * (written.shape[1] - 1)
    assert torch.is_tensor(predictor.encoder.encode(["photos/broken.png"])[0])
