"""From training to use: what a run, its copy in another folder and its exported model predict is the same."""

import json
import shutil
from pathlib import Path

import numpy
import pandas
import pytest
from helpers import QUICK, read_record, run_folders
from PIL import Image
from test_new_maps import write_scenes
from trained_houses import ALL, TABLE, write_table

SHORT = [option for option in QUICK if option.startswith(("trainer", "runtime"))]


def write_photos(root):
    """Write 60 images and their labels, a color and how bright it is."""
    Path(root).mkdir()
    lines, random = ["file,color,light"], numpy.random.default_rng(0)
    for index in range(60):
        pixels = random.integers(0, 100, (16, 16, 3)) + 100 * numpy.eye(3, dtype=int)[index % 3]
        Image.fromarray(pixels.astype("uint8")).save(f"{root}/{index}.png")
        lines.append(f"{index}.png,{['red', 'green', 'blue'][index % 3]},{pixels.mean():.3f}")
    Path("labels.csv").write_text("\n".join(lines))


def table():
    write_table("data.csv")
    return [word.replace("houses.csv", "data.csv") for word in [*TABLE, ALL]], "data.csv", "predictions.csv"


def images():
    write_photos("photos")
    words = ["dataset=images", "dataset.root=photos", "dataset.labels=labels.csv", "dataset.size=16",
             "backbone=convnet", "backbone.width=0.125", "dataset.predict=[color,light]",
             "trainer.baselines=false", *SHORT]  # fmt: skip
    return words, "photos", "predictions.csv"


def maps():
    write_scenes("scenes")
    words = ["dataset=nyuv2", "dataset.root=scenes", "backbone=convnet", "backbone.width=0.125", *SHORT]
    return words, "scenes/val/image", "predictions"


def read_numbers(path):
    """Return {name: what was predicted} of a file of predictions or a folder of maps."""
    if Path(path).is_dir():
        arrays = {str(each.relative_to(path)): each for each in Path(path).rglob("*.npy")}
        images = {str(each.relative_to(path)): each for each in Path(path).rglob("*.png")}
        return {name: numpy.load(each) for name, each in arrays.items()} | {
            name: numpy.asarray(Image.open(each)) for name, each in images.items()
        }
    frame = pandas.read_csv(path).set_index("sample")
    return {name: frame[name].to_numpy() for name in frame}


@pytest.mark.slow
@pytest.mark.parametrize("make", [table, images, maps])
def test_a_run_is_used_from_a_copy_of_its_folder(make, mtlrun, tmp_path, monkeypatch):
    words, inputs, out = make()
    code, _, err = mtlrun(*words)
    assert code == 0, err
    (folder,) = run_folders()
    record = read_record(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(folder, elsewhere / "run")
    shutil.copytree(folder, elsewhere / "copy")
    inputs = str((tmp_path / inputs).resolve())
    data = [str((tmp_path / word.partition("=")[2]).resolve()) for word in words if word.startswith("dataset.root=")]
    monkeypatch.chdir(elsewhere)
    shutil.rmtree(tmp_path / "outputs")

    assert mtlrun("predict", "run", "--input", inputs, "--out", out)[0] == 0
    code, _, err = mtlrun("export", "run", "--out", "model.onnx")
    assert (code, err) == (0, "")
    shutil.rmtree("run")
    assert mtlrun("predict", "model.onnx", "--input", inputs, "--out", f"onnx_{out}")[0] == 0
    expected, found = read_numbers(out), read_numbers(f"onnx_{out}")
    assert list(found) == list(expected)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            numpy.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            assert (found[name] == values).all(), name

    moved = [f"dataset.root={root}" for root in data]
    moved += [f"dataset.labels={tmp_path / 'labels.csv'}"] * (make is images) + [f"dataset.path={inputs}"] * (
        make is table
    )
    code, _, err = mtlrun("evaluate", "copy", *moved, "--out", "metrics.json")
    assert code == 0, err
    metrics = json.loads(Path("metrics.json").read_text())["metrics"]
    for task, values in record["test"].items():
        numpy.testing.assert_allclose([metrics[task][name] for name in values], list(values.values()), rtol=1e-5)
    if make is table:  # the rows of the test split are those that the run predicted
        written = pandas.read_csv("copy/predictions.csv").query("split == 'test'").set_index("sample")
        again = pandas.read_csv(out).set_index("sample").loc[written.index]
        numpy.testing.assert_allclose(again["price.prediction"], written["price.prediction"], rtol=1e-5)
        assert (again["kind.prediction"] == written["kind.prediction"]).all()
