"""A predictor made of a run's folder alone, wherever it is, gives what the run wrote down of its predictions."""

import json
import shutil

import numpy
import pandas
import pytest
import torch
from helpers import read_record

from mtlrun.config.instantiate import build
from mtlrun.datasets import MultiTaskDataset
from mtlrun.datasets.base import as_split
from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import CheckpointError, DataError

RUNS = {
    "rotations": ["weighting=rotograd", "trainer.evaluate_every=1", "optimizer.lr=0.01"],
    "a state for each task": ["trainer.monitor=per_task", "trainer.evaluate_every=1", "optimizer.lr=0.02"],
    "independent networks": ["model=single", "trainer.monitor=per_task"],
    "as large as another": ["model=hard", "match_parameters=single"],
    "balanced classes": ["tasks.left.class_weights=balanced"],
}


def inputs_of(folder, split="test"):
    """Return the inputs of a split, by the dataset that the record describes."""
    record = read_record(folder)
    dataset = build(record["config"]["dataset"], "dataset", MultiTaskDataset)
    samples = as_split(dataset.split(split))
    return torch.stack([samples[index][0] for index in range(len(samples))])


def test_predictions_are_those_of_the_run_from_a_copied_folder(quick, tmp_path):
    for number, overrides in enumerate(RUNS.values()):
        folder = quick(*overrides)
        written = pandas.read_csv(folder / "predictions.csv").query("split == 'test'")
        inputs = inputs_of(folder)
        copied = tmp_path / f"copy{number}"
        shutil.move(folder, copied)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        predictor = Predictor.load(copied, device="cpu")
        for network in predictor.networks:
            assert not network.model.training
        predicted = predictor.predict(inputs)
        assert list(predicted) == list(read_record(copied)["main_metrics"])
        for task, decoded in predicted.items():
            chances = written.filter(regex=rf"^{task}\.probability\.").to_numpy()
            assert numpy.allclose(decoded.probabilities, chances, rtol=0, atol=1e-6), (number, task)
            assert (decoded.prediction.numpy() == written[f"{task}.prediction"]).all()
        assert list(predictor.only(["right"]).predict(inputs[:2])) == ["right"]
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_tasks_know_what_they_learned(quick):
    folder = quick(*RUNS["balanced classes"])
    weights = Predictor.load(folder, device="cpu").tasks["left"].class_weights
    targets = as_split(build(read_record(folder)["config"]["dataset"], "dataset", MultiTaskDataset).split("train"))
    counts = torch.bincount(torch.tensor([int(targets[index][1]["left"]) for index in range(len(targets))]))
    assert torch.equal(weights, (counts.sum() / (len(counts) * counts)).float())


def test_what_cannot_predict_is_named(quick, tmp_path):
    with pytest.raises(DataError, match="found no run; give the folder of a completed run"):
        Predictor.load(tmp_path)
    folder = quick()
    learned = folder / "learned.json"
    content = json.loads(learned.read_text())
    record = (folder / "record.json").read_text()

    def refused(error, text):
        with pytest.raises(error, match=text):
            Predictor.load(folder, device="cpu")

    learned.write_text(json.dumps({key: value for key, value in content.items() if key != "model"}))
    refused(DataError, "of an earlier version of mtlrun, which did not keep")
    learned.write_text("{")
    refused(DataError, "learned.json is damaged")
    learned.write_text(json.dumps(content | {"model": content["model"] | {"input_shape": 3}}))
    refused(DataError, "learned.json is damaged")
    learned.write_text(json.dumps(content | {"model": content["model"] | {"input_shape": [1, 12, 12]}}))
    refused(CheckpointError, "does not fit the model of this run")
    learned.write_text(json.dumps(content))
    (folder / "record.json").write_text(record.replace('"status": "completed"', '"status": "interrupted"'))
    refused(DataError, "found a run that is interrupted")
    (folder / "record.json").write_text(record)
    (folder / "checkpoints" / "best.pt").unlink()
    refused(DataError, "best.pt is gone")


def test_code_of_the_author_is_not_taken_from_beside_the_run(quick, monkeypatch):
    folder = quick()
    record = json.loads((folder / "record.json").read_text())
    record["config"]["backbone"]["_target_"] = "their_code.Network"
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="package their_code, which cannot be imported; install their_code, or"):
        Predictor.load(folder, device="cpu")
    (folder / "their_code.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(DataError, match=r"found beside the run, in .*; what comes with a run is not executed"):
        Predictor.load(folder, device="cpu")
