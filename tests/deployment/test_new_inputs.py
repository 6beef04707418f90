"""New rows and images are predicted as those of the run were, from a copied folder, without the data."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy
import pandas
import pytest
from helpers import QUICK, read_record, run_folders
from PIL import Image

from mtlrun.datasets.tables.reading.stream import CsvStream
from mtlrun.deployment.predictor import Predictor

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


def check_evaluation(mtlrun, folder, *overrides):
    """Assert that `evaluate` gives the metrics and the intervals of the record, and says nothing else."""
    code, out, err = mtlrun("evaluate", str(folder), "--out", "metrics.json", *overrides)
    assert (code, err) == (0, ""), err
    found, record = json.loads(Path("metrics.json").read_text()), read_record(folder)
    for task, metrics in record["test"].items():
        assert found["metrics"][task] == pytest.approx(metrics, rel=1e-5, nan_ok=True), task
        for metric, bounds in record["intervals"]["test"].get(task, {}).items():
            assert found["intervals"][task][metric] == pytest.approx(bounds, rel=1e-5), (task, metric)
    assert found["metrics"].keys() == record["test"].keys()
    assert "bootstrap interval over samples of the test split" in out


def test_rows_of_training_are_predicted_as_the_run_did(trained, mtlrun, monkeypatch):
    monkeypatch.setattr(CsvStream, "block_size", 1500)
    for variant in VARIANTS:
        frame = write_houses()
        if "dataset.decimal=','" in variant:
            frame.to_csv("houses.csv", index=False, sep=";", decimal=",", na_rep="none")
        folder, expected = trained(*variant)
        Path("houses.csv").rename("moved.csv")
        code, out, err = mtlrun("predict", str(folder), "--input", "moved.csv", "--out", "out.csv", "--batch-size", "7")
        assert code == 0, err
        assert out == "written to out.csv: 90 samples\n"
        assert err.startswith("mtlrun: columns that are no inputs of this run, and are ignored: ")
        written = pandas.read_csv("out.csv")
        check_equal(written, expected)
        # The same from memory, and as Parquet.
        predictor = Predictor.load(folder, device="cpu")
        inputs, wrong = predictor.encoder.encode(frame)
        assert not wrong
        assert numpy.allclose(predictor.predict(inputs)["price"].prediction, written["price.prediction"], rtol=1e-6)
        frame.to_parquet("new.parquet")
        assert mtlrun("predict", str(folder), "--input", "new.parquet", "--out", "out.parquet")[0] == 0
        as_parquet = pandas.read_parquet("out.parquet").drop(columns="sample")
        pandas.testing.assert_frame_equal(as_parquet, written.drop(columns="sample"), check_dtype=False, rtol=1e-6)
    check_evaluation(mtlrun, folder, "dataset.path=moved.csv")


def test_what_is_wrong_with_new_rows_is_said(trained, mtlrun):
    frame = write_houses()
    folder, _ = trained(*VARIANTS[0])
    check_other_data(mtlrun, folder, frame)
    lines = Path("houses.csv").read_text().splitlines()
    header, first, second, third = (row for row, _ in zip(csv.reader(lines), range(4), strict=False))

    def write(*rows):
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(rows)
        return file.getvalue()

    def predict(text, *arguments):
        Path("new.csv").write_text(text)
        Path("out.csv").unlink(missing_ok=True)
        code, out, err = mtlrun("predict", str(folder), "--input", "new.csv", "--out", "out.csv", *arguments)
        assert Path("out.csv").exists() == (code == 0)
        return code, out, err

    def changed(row, **cells):
        return [cells.get(name, cell) for name, cell in zip(header, row, strict=True)]

    def renamed(**names):
        return [names.get(name, name) for name in header]

    bad_number, bad_date = changed(second, age="old"), changed(second, built="12.5.1999")
    rows = [header, first, bad_number, bad_date, ["h7", 1], [], changed(first, id="h9"), changed(third, city="Paris")]
    code, out, err = predict(write(*rows))
    assert (code, out) == (0, "written to out.csv: 7 samples\n"), err
    assert "4 of 7 samples cannot be predicted, and their cells are empty:" in err
    assert "  - row 3, column age: 'old' is not a finite number\n" in err
    assert "  - row 4, column built: '12.5.1999' is no date in the format 'ISO8601'" in err
    assert "  - row 5, found 2 cells, and the header names" in err
    assert "  - row 6, the row is empty\n" in err
    assert "texts that are no category of training count as none: city (1 row)" in err
    written = pandas.read_csv("out.csv")
    assert written["sample"].tolist() == ["h0", "h1", "h1", "5", "6", "h9", "h2"]
    assert written["kind.prediction"].isna().tolist() == [False, True, True, True, True, False, False]
    assert written.iloc[0, 1:].equals(written.iloc[5, 1:])

    for text, said in (
        (
            write([{"area": "Area"}.get(name, name) for name in header], first),
            "there is no column 'area'; did you mean 'Area'?",
        ),
        (
            write([{"area": "x", "city": "y"}.get(name, name) for name in header], first),
            "2 columns are missing, 'area', 'city'",
        ),
        (write(header, bad_number), "none of 1 samples can be predicted: row 2, column age: 'old'"),
        (write(header), "the input has no samples"),
    ):
        code, out, err = predict(text)
        assert (code, out) == (2, ""), err
        assert said in err
        assert len(err.splitlines()) == 1
    tabs = frame.drop(columns="tags").to_csv(index=False, sep="\t")
    assert predict(tabs, "dataset.separator=tab")[0] == 0
    for arguments, said in (
        (["dataset.separater=tab"], "cannot be given here; did you mean 'separator'?"),
        (["trainer.epochs=3"], "only keys of dataset can be given here"),
        (["dataset.split_seed=3"], "cannot be given here"),
        (["--out", "new.csv"], "this is the input, which would be lost"),
        (["--out", f"{folder}/new.csv"], "this is in the folder of the run"),
        (["--out", "new.txt"], "its suffix names no format"),
        (["--out", "maps"], "no maps are predicted, but a line for each sample"),
        (["--out", "absent/new.csv"], "there is no folder absent"),
        (["--tasks", "prise"], "did you mean 'price'?"),
        (["--input", "absent.csv"], "there is no such file"),
        (["--code", "absent"], "there is no such folder"),
    ):
        code, _, err = mtlrun("predict", str(folder), "--input", "new.csv", "--out", "never.csv", *arguments)
        assert code == 2, arguments
        assert said in err
        assert not Path("never.csv").exists()


def check_other_data(mtlrun, folder, frame):
    """Assert that the rows of the test split, as a file of their own, have the metrics of the test split."""
    ids = json.loads((folder / "splits.json").read_text())["test"]
    tested = frame.set_index("id", drop=False).loc[ids[::-1]]
    tested.to_csv("labeled.csv", index=False)

    def evaluate(path, *arguments):
        code, _, err = mtlrun("evaluate", str(folder), "--input", path, "--out", "metrics.json", *arguments)
        assert code == 0, err
        return json.loads(Path("metrics.json").read_text()), err

    found, err = evaluate("labeled.csv")
    assert err == ""
    for task, metrics in read_record(folder)["test"].items():
        assert found["metrics"][task] == pytest.approx(metrics, rel=1e-5, nan_ok=True), task
        assert found["intervals"][task].keys() == read_record(folder)["intervals"]["test"][task].keys()
    expected = found["metrics"]
    strange = tested.drop(columns=["sold", "tags"]).copy()
    strange.loc["new"] = strange.iloc[0]
    strange.loc["new", "kind"], strange.loc["new", "grade"], strange.loc["new", "rooms"] = "castle", None, -4
    strange.loc["bad"] = strange.iloc[0]
    strange["price"] = strange["price"].astype(object)
    strange["age"] = strange["age"].astype(object)
    strange.loc["new", "price"], strange.loc["bad", "age"] = "much", "old"
    strange.to_csv("strange.csv", index=False)
    found, err = evaluate("strange.csv")
    assert found["metrics"] == {task: pytest.approx(expected[task], rel=1e-5, nan_ok=True)
                                for task in ("price", "kind", "grade", "rooms")}  # fmt: skip
    for said in ("1 of 15 samples cannot be predicted, and they are left out:",
                 "column age: 'old' is not a finite number",
                 "price: labels that the run does not know count as missing: 'much' (1 row)",
                 "kind: labels that the run does not know count as missing: 'castle' (1 row)",
                 "sold: there is no label in strange.csv", "tags: there is no label in strange.csv"):  # fmt: skip
        assert said in err, err
    tested[["area", "age", "city", "built", "floor"]].to_csv("unlabeled.csv", index=False)
    for arguments, said in (
        (["--input", "unlabeled.csv"], "there are no labels; a column of a task is needed (price, kind, "),
        (["--input", "labeled.csv", "--split", "val"], "use it without --split"),
        (["--out", "metrics.txt"], "metrics are written as JSON"),
        (["dataset.paths=houses.csv"], "did you mean 'path'?"),
        (["dataset.path=labeled.csv"], "split has other samples, labels or weights now than when the run was trained"),
    ):
        code, _, err = mtlrun("evaluate", str(folder), *arguments)
        assert code == 2, arguments
        assert said in err, err


def test_images_are_predicted_as_the_run_did(mtlrun):
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
    check_evaluation(mtlrun, folder)
    Path("photos").rename("elsewhere")
    Path("elsewhere/broken.png").write_bytes(b"no image")
    names = [*(name for name, *_ in labels), "broken.png", "absent.png"]
    pandas.DataFrame({"file": names, "other": 1}).to_csv("new.csv", index=False)
    for arguments, count in (
        (["--input", "elsewhere"], 41),
        (["--input", "new.csv", "dataset.root=elsewhere"], 42),
    ):
        code, out, err = mtlrun("predict", "copied", *arguments, "--out", "out.csv", "--batch-size", "7")
        assert code == 0, err
        assert out == f"written to out.csv: {count} samples\n"
        assert "broken.png is not a readable image" in err
        assert ("row 43, column file: there is no file elsewhere/absent.png" in err) == (count == 42)
        written = pandas.read_csv("out.csv").set_index("sample", drop=False)
        check_equal(written, expected)
        empty = written.loc["broken.png"].notna().tolist()
        assert empty == [True] + [False] * (len(empty) - 1)
    chosen = [f"elsewhere/{labels[1][0]}", f"elsewhere/{labels[0][0]}"]
    assert mtlrun("predict", "copied", "--input", *chosen, "--out", "out.csv")[0] == 0
    assert pandas.read_csv("out.csv")["sample"].tolist() == chosen
    for path in ("new.parquet", "labels.csv"):
        code, _, err = mtlrun("predict", "copied", "--input", path, "--out", "never.csv", "dataset.file_column=image")
        assert code == 2
        assert ("no such file" if path == "new.parquet" else "there is no column 'image' with the files") in err
