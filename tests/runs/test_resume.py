"""A run that is stopped in whatever way and started again equals one that never stopped, bit by bit."""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch
from helpers import QUICK, choose_weighting, read_record, run_folders, slow_unless, start, train_until_step
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.errors import StorageError
from mtlrun.runs.run import run
from mtlrun.training import checkpoint

STATELESS = {"equal", "static"}
METHODS = [entry.name for entry in entries("weighting") if entry.name not in STATELESS]


class PowerCutError(BaseException):
    """The machine is gone; nothing may catch this."""


def outcome(folder):
    """Return all that must be the same whether or not a run was stopped in between."""
    folder = Path(folder)
    record = read_record(folder)
    last = checkpoint.load(folder / "checkpoints" / "last.pt")
    best = checkpoint.load(folder / "checkpoints" / "best.pt")
    assert last is not None
    assert best is not None
    (events,) = folder.glob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(events)).Reload()
    curves = {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }
    return {
        "status": record["status"],
        "metrics": [
            record[key] for key in ("val", "test", "selection", "skills", "trivial", "steps", "epochs", "intervals")
        ],
        "predictions": [path.read_text() for path in folder.glob("predictions.csv")],
        "curves": curves,
        "lines": (folder / "metrics.jsonl").read_text(),
        "state": [last["model"], last["optimizer"], last["weighting"], best["model_states"], last["generators"]],
    }


def assert_same(left, right):
    """Compare two outcomes; tensors must be equal in every bit."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for ours, theirs in zip(left, right, strict=True):
            assert_same(ours, theirs)
    elif isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    else:
        assert left == right or (left != left and right != right)


def config_of(*overrides):
    return compose([*QUICK, *overrides])


@pytest.mark.parametrize(
    ("method", "step"),
    slow_unless(
        lambda method, step: method in {"gradnorm", "pcgrad"} and step == 7,
        [(method, 7) for method in METHODS] + list(product(["dwa", "gradnorm", "pcgrad"], [2, 4])),
    ),
)
def test_a_stopped_and_continued_run_equals_an_uninterrupted_one(method, step, monkeypatch):
    chosen = choose_weighting(method, primary="left")
    overrides = [*chosen, "trainer.clip_norm=1", "backbone.dropout=0.3", "scheduler=cosine"]
    run(config_of(*overrides, "runtime.root=whole"))
    config = config_of(*overrides, "runtime.root=parts")
    train_until_step(config, step, monkeypatch)
    assert read_record(run_folders("parts")[0])["status"] == "interrupted"
    run(config)
    assert read_record(run_folders("parts")[0])["resumed"] == 1
    assert_same(outcome(run_folders("whole")[0]), outcome(run_folders("parts")[0]))


@pytest.mark.parametrize(
    ("model", "monitor"),
    [("single", "mean_skill"), ("cross_stitch", "mean_skill"), ("soft", "mean_skill"), ("hard", "per_task")],
)
def test_every_model_continues_where_it_stopped(model, monitor, monkeypatch):
    overrides = [
        f"model={model}",
        f"trainer.monitor={monitor}",
        "trainer.patience=2",
        "trainer.evaluate_every_steps=3",
        "optimizer=sgd",
    ]
    run(config_of(*overrides, "runtime.root=whole"))
    config = config_of(*overrides, "runtime.root=parts")
    train_until_step(config, 6, monkeypatch)
    run(config)
    assert_same(outcome(run_folders("whole")[0]), outcome(run_folders("parts")[0]))


@pytest.mark.parametrize("numbers", ["piecewise_linear", "periodic"])
def test_embeddings_continue_where_they_stopped(numbers, monkeypatch):
    lines = [f"c{row % 7},{row % 11},{'' if row % 5 == 0 else row * row % 13},{row % 3}" for row in range(100)]
    Path("table.csv").write_text("\n".join(["city,x,z,y", *lines]))
    options = ["dataset=csv", "dataset.path=table.csv", "+task@tasks.y=regression", "+task@tasks.w=regression",
               "+dataset.targets.w=x", "backbone=embedding_mlp", f"backbone.numbers={numbers}",
               "backbone.hidden=[8]", "backbone.dropout=0.2", "backbone.norm=batch", "model=mmoe", "weighting=mgda",
               "dataset.scale=quantile", "trainer.epochs=3", "trainer.batch_size=16",
               "runtime.quiet=true"]  # fmt: skip
    run(compose([*options, "runtime.root=whole"]))
    parts = compose([*options, "runtime.root=parts"])
    train_until_step(parts, 6, monkeypatch)
    run(parts)
    assert_same(outcome(run_folders("whole")[0]), outcome(run_folders("parts")[0]))


@pytest.mark.slow
def test_a_power_cut_between_any_two_writes_changes_nothing(monkeypatch):
    run(config_of("runtime.root=whole"))
    expected = outcome(run_folders("whole")[0])
    replace = os.replace
    cuts = 0
    for last_write in range(100):
        root = f"cut{last_write}"
        config = config_of(f"runtime.root={root}")
        writes = 0

        def cut(source, target, limit=last_write):
            nonlocal writes
            writes += 1
            if writes > limit:
                raise PowerCutError
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut)
            try:
                run(config)
            except PowerCutError:
                cuts += 1
            else:
                break
        run(config)
        assert_same(expected, outcome(run_folders(root)[0]))
    assert cuts >= 10  # records, configs, best and last checkpoints of 3 epochs


def last_write(root):
    """Return when the newest checkpoint below `root` was written, 0 if there is none."""
    return max((path.stat().st_mtime_ns for path in Path(root).glob("**/last.pt")), default=0)


@pytest.mark.slow
def test_a_run_killed_three_times_equals_an_uninterrupted_one():
    overrides = [*QUICK, "trainer.epochs=40", "weighting=pcgrad", "runtime.checkpoint_minutes=0.0005"]
    run(compose([*overrides, "runtime.root=whole"]))
    generator = random.Random(0)
    for _ in range(3):
        before = last_write("killed")
        process = start(*overrides, "runtime.root=killed")
        # Not just another time: between two names of a checkpoint there is none.
        while last_write("killed") <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.random() * 0.1)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
        assert read_record(run_folders("killed")[0])["status"] == "running"
    process = start(*overrides, "runtime.root=killed")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert read_record(run_folders("killed")[0])["resumed"] == 3
    assert_same(outcome(run_folders("whole")[0]), outcome(run_folders("killed")[0]))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_step_finish_and_leaves_a_checkpoint(number, code):
    process = start(*QUICK, "trainer.epochs=100000")
    while not last_write("outputs") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on from here" in err
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["status"] == "interrupted"
    assert signal.Signals(number).name in record["error"]
    state = checkpoint.load(folder / "checkpoints" / "last.pt")
    assert state["progress"]["step"] == record["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_second_signal_stops_at_once(number, code, tmp_path):
    # A step that would take a minute: the first signal waits for its end, the second does not.
    program = (
        "import pathlib, signal, time\n"
        "from mtlrun.cli.main import dispatch\n"
        "from mtlrun.training.trainer import Trainer\n"
        # A shell that runs the tests in the background has its children ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow(self, batch, other=None):\n"
        "    pathlib.Path('stepping').touch()\n"
        "    for _ in range(600):\n"
        "        time.sleep(0.1)\n"
        "Trainer.train_step = slow\n"
        f"raise SystemExit(dispatch({QUICK}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        while not (tmp_path / "stepping").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        time.sleep(2)  # a busy machine may take a while to deliver it, and two at once would count as one
        assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=45)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_warned_of_and_the_one_before_it_is_used(damage, monkeypatch):
    run(config_of("runtime.root=whole"))
    config = config_of("runtime.root=parts")
    train_until_step(config, 9, monkeypatch)
    (folder,) = run_folders("parts")
    path = folder / "checkpoints" / "last.pt"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run(config)
    assert "last.pt" in (folder / "run.log").read_text()
    assert "going back to the one before it" in (folder / "run.log").read_text()
    assert_same(outcome(run_folders("whole")[0]), outcome(folder))


@pytest.mark.parametrize("damage", ["gone", "damaged", "of a later evaluation", "of another run"])
def test_a_run_goes_on_whatever_has_become_of_best(damage, monkeypatch):
    overrides = ["trainer.monitor=per_task", "trainer.patience=2", "trainer.evaluate_every_steps=2"]
    run(config_of(*overrides, "runtime.root=whole"))
    config = config_of(*overrides, "runtime.root=parts")
    train_until_step(config, 5, monkeypatch)
    (folder,) = run_folders("parts")
    path = folder / "checkpoints" / "best.pt"
    if damage == "damaged":
        path.write_bytes(b"nothing")
    elif damage == "gone":
        path.unlink()
    else:
        best = checkpoint.load(path)
        best["evaluations"] = [number + 1 for number in best["evaluations"]]
        for state in best["model_states"]:
            for tensor in state.values():
                tensor.zero_()
        if damage == "of another run":
            best["run"] = "another"
        checkpoint.save(best, path)
    run(config)
    assert "continued at epoch 2, step 5" in (folder / "run.log").read_text()
    assert_same(outcome(run_folders("whole")[0]), outcome(folder))


def test_a_run_of_another_version_is_refused_and_stays_as_it_is(mtlrun, monkeypatch):
    train_until_step(config_of(), 9, monkeypatch)
    (folder,) = run_folders()
    path = folder / "checkpoints" / "last.pt"
    torch.save(checkpoint.load(path) | {"format": 3}, path)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    code, out, err = mtlrun(*QUICK)
    assert (code, out) == (2, "")
    assert err == (
        f"mtlrun: {path} has checkpoint format 3, and this version of mtlrun reads format 6; train that run anew "
        "(runtime.rerun=true), or use the version that wrote it\n"
    )
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert mtlrun(*QUICK, "runtime.rerun=true")[0] == 0
    assert read_record(folder)["status"] == "completed"


def test_a_full_disk_fails_the_run_and_the_next_try_goes_on(monkeypatch):
    run(config_of("runtime.root=whole"))
    config = config_of("runtime.root=parts")
    calls = 0
    save = torch.save

    def fill_up(*arguments):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device")
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fill_up)
        with pytest.raises(StorageError, match="No space left"):
            run(config)
    (folder,) = run_folders("parts")
    assert read_record(folder)["status"] == "failed"
    assert not list(folder.glob("checkpoints/.*"))
    run(config)
    assert_same(outcome(run_folders("whole")[0]), outcome(folder))
