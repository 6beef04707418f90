"""What a run is computed with: nothing outside of its identity changes its numbers."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUICK, read_lines, read_record, run_folders, train_until_step

from mtlrun.config.compose import compose
from mtlrun.config.seeds import SEVERAL
from mtlrun.config.settings import Runtime
from mtlrun.datasets import MultiTaskDataset, Split
from mtlrun.records.identity import _HARMLESS, config_hash
from mtlrun.runs.run import run

SHORT = [*QUICK, "trainer.epochs=2"]

# Another value of each key of `runtime`, and of what else is outside of a run's identity, but for
# `trainer.vectorized_seeds`, which makes several runs, whose numbers differ by rounding; see test_together.py.
OTHERS = {
    "runtime.root": "elsewhere",
    "runtime.study": "another",
    "runtime.device": "cpu",
    "runtime.num_workers": "2",
    "runtime.num_threads": "1",
    "runtime.checkpoint_minutes": "1e-6",
    "runtime.predictions": "none",
    "runtime.rerun": "true",
    "runtime.quiet": "false",
    "trainer.baselines": "false",
}


@pytest.fixture(autouse=True)
def _threads():
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


class Image(Split):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        pixels = torch.rand(4, 200_000)
        return pixels.sum(dim=1), {"sum": pixels.sum()}


class Large(MultiTaskDataset):
    input_shape = (4,)
    task_names = ("sum",)

    def split(self, name):
        return Image()


def numbers(folder):
    """Return all that a run has learned and measured, without times."""
    record = read_record(folder)
    lines = [{key: value for key, value in line.items() if "second" not in key and "time" not in key}
             for split in ("train", "val", "test") for line in read_lines(folder, split)]  # fmt: skip
    state = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)
    tensors = {key: value.tolist() for key, value in flat(state).items() if isinstance(value, torch.Tensor)}
    return json.dumps([record["val"], record["test"], record["skills"], lines, tensors])


def flat(value, key=""):
    if isinstance(value, dict):
        return {place: item for name, inner in value.items() for place, item in flat(inner, f"{key}/{name}").items()}
    return {key: value}


def test_no_key_outside_of_the_identity_changes_a_number(mtlrun):
    keys = {f"runtime.{field.name}" for field in dataclasses.fields(Runtime)}
    harmless = {key for key in _HARMLESS if "." in key} - {SEVERAL}  # `found` is text of the program's
    assert set(OTHERS) == keys | harmless
    mtlrun(*SHORT)
    (folder,) = run_folders()
    expected = numbers(folder)
    assert len(expected) > 2000
    for key, value in OTHERS.items():
        words = [word for word in SHORT if not word.startswith(key)]
        more = [] if key == "runtime.root" else ["runtime.root=again", f"runtime.study={key}"]
        code, _, err = mtlrun(*words, *(word for word in more if not word.startswith(f"{key}=")), f"{key}={value}")
        assert code == 0, err
        (other,) = set(run_folders(".")) - {folder}
        assert other.name == folder.name
        assert numbers(other) == expected, key
        (other / "record.json").unlink()


def test_several_threads_are_another_run_and_one_is_the_default():
    hashes = {number: config_hash(compose([f"runtime.num_threads={number}"])) for number in ("null", 1, 2, 3)}
    assert hashes["null"] == hashes[1] == config_hash(compose())
    assert len(set(hashes.values())) == 3
    for number in (1, 3):
        torch.set_num_threads(2)  # as PyTorch may choose by the machine
        record = run(compose([*SHORT, "trainer.epochs=1", f"runtime.num_threads={number}", f"runtime.study=n{number}"]))
        assert record.environment["threads"] == number == torch.get_num_threads()


def test_the_number_of_processes_that_load_does_not_change_the_numbers_of_several_threads(mtlrun):
    """In a worker process PyTorch has one thread, and a sum over a large image depends on their number."""
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/large.yaml").write_text("# @package _global_\n" + yaml.safe_dump({
        "dataset": {"_target_": f"{__name__}.Large"},
        "tasks": {"sum": {"_target_": "mtlrun.tasks.Regression"}},
    }))  # fmt: skip
    found = []
    for workers in (0, 1):
        code, _, err = mtlrun(
            "--config-dir", "conf", "dataset=large", "backbone=mlp", "trainer.epochs=1", "runtime.num_threads=2",
            f"runtime.num_workers={workers}", f"runtime.study=n{workers}", "runtime.quiet=true",
        )  # fmt: skip
        assert code == 0, err
        (folder,) = Path("outputs", f"n{workers}").glob("*/")
        found.append(numbers(folder))
    assert found[0] == found[1]


def test_a_run_that_was_begun_with_other_threads_goes_on_with_them(monkeypatch):
    config = compose(SHORT)
    train_until_step(config, 5, monkeypatch)
    (folder,) = run_folders()
    record = read_record(folder)
    record["environment"] |= {"threads": 2, "device": "cuda:0"}  # as an earlier version left it to PyTorch
    (folder / "record.json").write_text(json.dumps(record))
    torch.set_num_threads(1)
    finished = run(config)
    assert finished.environment["threads"] == 2
    assert "2 threads, with which this run was begun" in (folder / "run.log").read_text()
    assert any(note.startswith("continued on cpu, after cuda") for note in finished.notes)
