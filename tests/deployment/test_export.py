"""An exported model predicts what the run predicts, from its file alone, for batches of any size."""

import csv
import json
import random

import numpy
import onnx
import onnxruntime
import pandas
import pytest
import torch
from helpers import run_folders

from mtlrun.cli.main import dispatch
from mtlrun.deployment.exporting import export as exporting
from mtlrun.deployment.opening import open_predictor
from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import ConfigError, DataError


def write_table(path, rows=200):
    draw = random.Random(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["city", "area", "year", "price", "kind", "sold", "stars", "calls"])
        for _ in range(rows):
            area, year = draw.gauss(100, 30), draw.randrange(1950, 2020)
            writer.writerow([
                draw.choice("abcde"), "" if draw.random() < 0.1 else f"{area:.2f}", year, f"{3000 * area:.0f}",
                draw.choice(["house", "flat", "hut"]), "yes" if year > 1990 else "no", draw.randrange(5),
                draw.randrange(9),
            ])  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run with tasks of several kinds on a table whose categories are embedded."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_table("homes.csv")
        code = dispatch([
            "dataset=csv", "dataset.path=homes.csv", "backbone=tabular", "model=mmoe", "trainer.epochs=1",
            "+task@tasks.price=regression", "+task@tasks.kind=classification", "+task@tasks.sold=binary",
            "+task@tasks.stars=ordinal", "+task@tasks.calls=count", "trainer.baselines=false", "runtime.quiet=true",
        ])  # fmt: skip
        assert code == 0
        return run_folders()[0].resolve()


def run_onnx(path, inputs):
    """Return {output: values} as any user of onnxruntime would get them."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: inputs.numpy()}), strict=True))


@pytest.mark.slow
def test_an_onnx_file_has_all_that_predictions_need(run, mtlrun):
    code, out, err = mtlrun("export", str(run), "--out", "all.onnx")
    assert (code, err) == (0, "")
    assert "checked with 1 and 5 samples" in out
    predictor, exported = Predictor.load(run, "cpu"), open_predictor("all.onnx")
    frame = pandas.read_csv(run.parents[2] / "homes.csv")
    inputs, wrong = predictor.encoder.encode(frame)
    assert not wrong
    assert torch.equal(exported.encoder.encode(frame)[0], inputs)
    with pytest.raises(ConfigError, match=r"an exported file has no nn\.Module; give the folder of the run"):
        _ = exported.model
    assert "found no run" in mtlrun("evaluate", "all.onnx", "--input", str(run.parents[2] / "homes.csv"))[2]
    for size in (1, 2, 200):
        expected, found = predictor.predict(inputs[:size]), exported.predict(inputs[:size])
        raw = run_onnx("all.onnx", inputs[:size])
        assert list(found) == list(expected) == ["price", "kind", "sold", "stars", "calls"]
        for task, decoded in expected.items():
            torch.testing.assert_close(found[task].prediction, decoded.prediction, rtol=1e-5, atol=1e-5)
            numpy.testing.assert_allclose(raw[f"{task}.prediction"], decoded.prediction, rtol=1e-5, atol=1e-5)
            if decoded.probabilities is not None:
                torch.testing.assert_close(found[task].probabilities, decoded.probabilities, rtol=1e-5, atol=1e-6)
                numpy.testing.assert_allclose(raw[f"{task}.probability"], decoded.probabilities, rtol=1e-5, atol=1e-6)
    metadata = {entry.key: entry.value for entry in onnx.load("all.onnx").metadata_props}
    assert json.loads(metadata["tasks"])["kind"]["classes"] == ["flat", "house", "hut"]
    assert json.loads(metadata["inputs"])["columns"]["area"].keys() >= {"median", "spread"}
    assert "homes.csv" not in metadata["mtlrun"]


def test_heads_of_other_tasks_are_left_out_of_a_program_of_torch(run, mtlrun):
    sizes = {}
    for name, tasks in {"all": [], "one": ["--tasks", "sold"]}.items():
        code, _, err = mtlrun("export", str(run), "--out", f"{name}.pt2", *tasks)
        assert (code, err) == (0, "")
        extra = {"tasks.json": ""}
        program = torch.export.load(f"{name}.pt2", extra_files=extra)
        sizes[name] = sum(tensor.numel() for tensor in program.state_dict.values())
    assert list(json.loads(extra["tasks.json"])) == ["sold"]
    predictor = Predictor.load(run, "cpu")
    assert sizes["all"] == sum(tensor.numel() for tensor in predictor.model.state_dict().values())
    others = [
        tensor.numel()
        for name, tensor in predictor.model.state_dict().items()
        if any(task in name.split(".") for task in ("price", "kind", "stars", "calls"))
    ]
    assert others
    assert sizes["all"] - sizes["one"] == sum(others)
    inputs = torch.zeros(7, *predictor.input_shape)
    _, prediction, probability = program.module()(inputs)
    expected = predictor.predict(inputs)["sold"]
    assert torch.equal(prediction, expected.prediction)
    torch.testing.assert_close(probability, expected.probabilities)


@pytest.mark.slow
def test_maps_and_a_state_for_each_task_are_exported(mtlrun):
    code, _, err = mtlrun(
        "dataset=scenes", "trainer=smoke", "trainer.monitor=per_task", "backbone.width=0.0625", "dataset.size=24",
        "dataset.num_train=10", "dataset.num_val=5", "dataset.num_test=5", "trainer.batch_size=4",
        "runtime.quiet=true", "trainer.evaluate_every=1",
    )  # fmt: skip
    assert code == 0, err
    (folder,) = run_folders()
    assert mtlrun("export", str(folder), "--out", "maps.onnx")[0] == 0
    predictor = Predictor.load(folder, "cpu")
    inputs = torch.randn(3, *predictor.input_shape)
    raw = run_onnx("maps.onnx", inputs)
    for task, output in predictor.outputs(inputs).items():
        numpy.testing.assert_allclose(raw[f"{task}.output"], output, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_leaves_nothing(run, mtlrun, monkeypatch, tmp_path):
    for words, problem in [
        ([str(run), "--tasks", "sould"], "--tasks sould: the run has no such task; did you mean 'sold'?"),
        ([str(run), "--out", "x.h5"], "--out x.h5: its suffix names no format"),
        ([str(run), "--format", "torch", "--out", "x.onnx"], "--format torch: x.onnx is a file of the format onnx"),
        ([str(tmp_path)], "found no run; give the folder of a completed run"),
    ]:
        code, out, err = mtlrun("export", *words)
        assert (code, out) == (2, "")
        assert problem in err
        assert len(err.splitlines()) == 1
    monkeypatch.setattr(exporting, "_TOLERANCE", -1.0)
    code, _, err = mtlrun("export", str(run), "--format", "torch")
    assert code == 2
    assert "differs from PyTorch's by" in err
    assert "nothing is written" in err
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_of_others_is_refused(tmp_path):
    path = tmp_path / "other.onnx"
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "other", [x], [y]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path)
    with pytest.raises(DataError, match="no metadata of mtlrun; give a file that `mtlrun export` wrote"):
        open_predictor(path)
    path.write_bytes(b"no model")
    with pytest.raises(DataError, match="is no ONNX file that can be read"):
        open_predictor(path)
