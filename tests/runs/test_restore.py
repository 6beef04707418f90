"""A run restored from its folder: the selected weights, the data, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import read_record

from mtlrun.errors import CheckpointError, ConfigError, DataError
from mtlrun.runs.restore import restore
from mtlrun.training.evaluation import evaluate


def test_a_restored_run_predicts_as_it_was_tested(quick, monkeypatch, tmp_path):
    folder = quick("weighting=rotograd", "trainer.evaluate_every=1", "optimizer.lr=0.01")
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    shutil.rmtree("outputs")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    restored = restore(moved, device="cpu")
    parts = restored.parts
    assert not restored.model.training
    found = evaluate(restored.model, parts.tasks, parts.loaders["test"], parts.device)
    for task, metrics in read_record(moved)["test"].items():
        assert found[task] == pytest.approx(metrics, rel=1e-5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_networks_need_not_find_what_they_started_from(quick):
    single = quick("model=single")
    started = quick("model=cross_stitch", f"model.init_from={single}")
    weights = torch.load(started / "checkpoints" / "best.pt")["model_states"][0]
    shutil.rmtree(single)
    with pytest.raises(DataError, match="found no run; give the folder of a completed run"):
        restore(single)
    state = restore(started, device="cpu").model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


def test_what_cannot_be_restored_is_named(quick):
    folder = quick()
    record = read_record(folder)
    best = folder / "checkpoints" / "best.pt"

    def change(**values):
        (folder / "record.json").write_text(json.dumps(record | values))

    change(status="interrupted")
    with pytest.raises(DataError, match="found a run that is interrupted"):
        restore(folder)
    change(splits=record["splits"] | {"val": record["splits"]["val"] | {"fingerprint": "other"}})
    with pytest.raises(DataError, match="the val split has other samples, labels or weights now"):
        restore(folder)
    change(config=record["config"] | {"dataset": record["config"]["dataset"] | {"num_train": -1}})
    with pytest.raises(ConfigError, match="num_train"):
        restore(folder)
    change()
    content = best.read_bytes()
    best.write_bytes(content[:1000] + b"x" + content[1001:])
    with pytest.raises(CheckpointError, match="damaged"):
        restore(folder)
    best.unlink()
    with pytest.raises(DataError, match=r"best\.pt is gone"):
        restore(folder)
    with pytest.raises(DataError, match="found no run"):
        restore(Path("nowhere"))
