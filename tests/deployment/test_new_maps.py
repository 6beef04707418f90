"""Maps are predicted for new images, into a folder, and built-in images from files of their size."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import torch
from helpers import QUICK, run_folders
from PIL import Image

from mtlrun.config.instantiate import build
from mtlrun.datasets import MultiTaskDataset
from mtlrun.deployment.inputs import Samples
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.sinks import BoxSink
from mtlrun.runs.restore import restore
from mtlrun.tasks import Depth, Detection

SIZE = (16, 24)
SHORT = [option for option in QUICK if option.startswith(("trainer", "runtime"))]


def write_scenes(root):
    """Write a tiny dataset in the layout of nyuv2."""
    for folder, count in (("train", 10), ("val", 3)):
        for index in range(count):
            random = numpy.random.default_rng(index)
            normals = random.standard_normal((*SIZE, 3))
            normals /= numpy.linalg.norm(normals, axis=2, keepdims=True)
            arrays = {"image": random.random((*SIZE, 3)), "label": random.integers(-1, 13, SIZE),
                      "depth": random.random((*SIZE, 1)) + 1, "normal": normals}  # fmt: skip
            for kind, array in arrays.items():
                path = Path(root, folder, kind, f"{index}.npy")
                path.parent.mkdir(parents=True, exist_ok=True)
                numpy.save(path, array.astype("float32"))


def test_maps_are_those_of_the_model(mtlrun):
    write_scenes("scenes")
    code, _, err = mtlrun("dataset=nyuv2", "dataset.root=scenes", "backbone=convnet", "backbone.width=0.125", *SHORT)
    assert code == 0, err
    (folder,) = run_folders()
    restored = restore(folder, device="cpu")
    split = restored.parts.loaders["test"].split
    inputs = torch.stack([split[index][0] for index in range(len(split))])
    with torch.inference_mode():
        expected = restored.model(inputs).predictions
    code, out, err = mtlrun("evaluate", str(folder), "--out", "metrics.json")
    assert (code, err) == (0, "")
    record = json.loads((folder / "record.json").read_text())
    for task, metrics in json.loads(Path("metrics.json").read_text())["metrics"].items():
        assert numpy.allclose(list(metrics.values()), [record["test"][task][name] for name in metrics], rtol=1e-5)

    shutil.move(folder, "copied")
    Path("scenes/val/image").rename("images")
    shutil.rmtree("scenes")
    Path("images/broken.png").write_bytes(b"none")
    Image.new("RGB", (5, 5)).save("images/small.png")
    code, out, err = mtlrun("predict", "copied", "--input", "images", "--out", "maps", "--batch-size", "2")
    assert code == 0, err
    assert out == "written to maps: 5 samples\n"
    assert "broken.png is not a readable image" in err
    assert "small.png: images must be 24 x 16 pixels for this run, found 5 x 5" in err
    assert sorted(path.name for path in Path("maps").iterdir()) == ["depth", "normals", "segmentation"]
    for index in range(3):
        classes = numpy.array(Image.open(f"maps/segmentation/{index}.png"))
        assert (classes == expected["segmentation"][index].argmax(dim=0).numpy()).mean() > 0.99
        depth = numpy.load(f"maps/depth/{index}.npy")
        assert numpy.allclose(depth, expected["depth"][index, 0], atol=1e-5)
        normals = numpy.load(f"maps/normals/{index}.npy")
        assert normals.shape == (*SIZE, 3)
        unit = torch.nn.functional.normalize(expected["normals"][index], dim=0).permute(1, 2, 0)
        assert numpy.allclose(normals, unit, atol=1e-4)

    for arguments, said in (
        (["--out", "table.csv"], "maps and boxes are predicted (segmentation, depth, normals); name a folder"),
        (["--out", "maps"], "there is something already"),
    ):
        code, _, err = mtlrun("predict", "copied", "--input", "images", *arguments)
        assert code == 2
        assert said in err
    assert mtlrun("predict", "copied", "--input", "images/0.npy", "--out", "one", "--tasks", "depth")[0] == 0
    assert [str(path) for path in Path("one").rglob("*.npy")] == ["one/depth/images/0.npy"]
    Path("images/0.jpg").write_bytes(b"none")
    Image.new("RGB", SIZE[::-1]).save("images/0.png")
    code, _, err = mtlrun("predict", "copied", "--input", "images", "--out", "never")
    assert code == 2
    assert "their maps would have one name, 0; rename one" in err
    assert not list(Path().glob("*never*"))


def test_images_of_a_built_in_dataset_come_from_files_of_their_size(quick, mtlrun):
    folder = quick()
    dataset = build(json.loads((folder / "record.json").read_text())["config"]["dataset"], "dataset", MultiTaskDataset)
    split = dataset.split("test")
    mean, std = dataset.pixel_statistics
    Path("digits").mkdir()
    for index in range(5):
        numpy.save(f"digits/{index}.npy", (split[index][0] * std + mean)[0].clamp(0, 1).numpy())
    code, _, err = mtlrun("predict", str(folder), "--input", "digits", "--out", "out.csv")
    assert (code, err) == (0, "")
    expected = pandas.read_csv(folder / "predictions.csv").query("split == 'test'").iloc[:5]
    found = pandas.read_csv("out.csv")
    chances = [name for name in found if "probability" in name]
    assert numpy.allclose(found[chances], expected[chances], atol=1e-4)
    assert found["sample"].tolist() == [f"{index}.npy" for index in range(5)]


def test_inputs_that_no_file_holds_are_said_to_be_so(mtlrun):
    assert mtlrun("dataset=kendall_toy", "trainer.epochs=1", "runtime.quiet=true")[0] == 0
    (folder,) = run_folders()
    Path("new.csv").write_text("x\n1\n")
    code, _, err = mtlrun("predict", str(folder), "--input", "new.csv", "--out", "out.csv")
    assert code == 2
    assert "the inputs of dataset=kendall_toy are of shape (1,), and no files are known to hold such" in err
    assert Predictor.load(folder).predict(torch.zeros(3, 1))["first"].prediction.shape == (3,)


class Found(Detection):
    """Two objects in the first image, none in the others."""

    def decode_boxes(self, prediction):
        objects = torch.tensor([[1, 2, 5.5, 6, 1, 0], [0, 0, 3, 3, 0, 0], [0, 0, 0, 0, -1, 0.0]])
        none = torch.tensor([[0, 0, 0, 0, -1, 0.0]] * 3)
        return torch.stack([objects, *[none] * (len(prediction) - 1)]), torch.tensor([[0.9, 0.25, 0]] * len(prediction))


def test_boxes_are_lines_of_a_table(tmp_path):
    predictor = SimpleNamespace(tasks={"objects": Found(2), "depth": Depth()}, names=lambda task: ["cat", "dog"])
    sink = BoxSink(predictor, tmp_path)
    samples = Samples(["a.png", "b.png", "c,d.png"], iter(()))
    for positions in ([0, 1], [2]):
        sink.batch(samples, numpy.array(positions), {"objects": torch.zeros(len(positions), 4, 11)})
    sink.end(samples)
    sink.close()
    assert (tmp_path / "objects.csv").read_text().splitlines() == [
        "sample,class,score,x1,y1,x2,y2",
        "a.png,dog,0.9,1,2,5.5,6",
        "a.png,cat,0.25,0,0,3,3",
        '"c,d.png",dog,0.9,1,2,5.5,6',
        '"c,d.png",cat,0.25,0,0,3,3',
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["objects.csv"]
