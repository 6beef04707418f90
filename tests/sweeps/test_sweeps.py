"""Sweeps on the command line: a process for each run, which ends alone; what is skipped, continued and tried again."""

import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from helpers import QUICK, read_record, run_folders, start

from mtlrun.records.overview import read_entries

# Datasets that end the process of a run in all ways that there are.
FAULTY = """
import ctypes, os, sys, time
from mtlrun.datasets import KendallToy

class Faulty(KendallToy):
    def __init__(self, how="", **options):
        super().__init__(**options)
        self._how, self._reads = how, 0

    def split(self, name):
        # Not while the run is prepared: the sweep would be refused.
        if name == "train" and os.path.exists("begun"):
            if self._how == "raise":
                raise RuntimeError("the disk has eaten [it]")
            if self._how == "exit":
                sys.exit(3)
            if self._how == "crash":
                ctypes.string_at(0)
            if self._how == "kill":
                os.kill(os.getpid(), 9)
            if self._how == "slow":
                time.sleep(60)
        return super().split(name)
"""


@pytest.fixture
def sweep(mtlrun):
    """Return a function that runs a sweep and returns what it printed."""

    def run(*words, code=0):
        got, out, err = mtlrun("-m", *words)
        assert got == code, out + err
        return out, err

    return run


def best(folder):
    """Return the selected weights of a run."""
    state = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)
    return [tensor for part in state["model_states"] for tensor in part.values()]


def test_each_run_is_a_process_and_a_finished_one_is_skipped(sweep):
    words = [*QUICK, "runtime.num_threads=1", "weighting=equal,mgda"]
    out, _ = sweep(*words, "seed=0")
    assert out.count("completed in") == 2
    assert not Path("outputs/runs/summary").exists()  # one run is no mean
    before = {folder: (folder / "record.json").stat().st_mtime_ns for folder in run_folders()}
    out, _ = sweep(*words, "seed=0,1")
    assert out.startswith("4 runs, 2 of them finished already")
    assert out.count("completed in") == 2
    assert all((folder / "record.json").stat().st_mtime_ns == time for folder, time in before.items())
    assert {read_record(folder)["status"] for folder in run_folders()} == {"completed"}
    assert len(run_folders()) == 4
    for record in map(read_record, run_folders()):  # which command makes this run alone
        assert record["environment"]["command"] == ["mtlrun", *record["overrides"]]
    assert out.splitlines()[-1] == "mean curves for TensorBoard, one per method: outputs/runs/summary"
    assert {path.parent.name for path in Path("outputs/runs/summary").glob("*/*")} == {"equal", "mgda"}


@pytest.fixture
def faulty():
    """Return the words of a run on a dataset that fails in the way of `dataset.how`, once `begun` exists."""
    Path("faulty.py").write_text(FAULTY)
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/faulty.yaml").write_text(
        "# @package _global_\ndefaults: [kendall_toy@_here_, _self_]\ndataset:\n  _target_: faulty.Faulty\n  how: ''\n"
    )
    return ["--config-dir=conf", "dataset=faulty", "backbone=mlp", "backbone.hidden=[4]", "trainer.epochs=2",
            "runtime.num_threads=1"]  # fmt: skip


def test_whatever_ends_a_run_ends_nothing_else(faulty, sweep):
    words = [*faulty, "dataset.how='',raise,exit,crash,kill", "hydra.launcher.time_limit=10"]
    Path("begun").touch()
    out, err = sweep(*words, code=1)
    assert "4 of 5 runs failed; the same command tries them again" in err
    for reason in (
        "RuntimeError: the disk has eaten [it]", "the code called sys.exit(3)", "segmentation fault (SIGSEGV)",
        "killed (SIGKILL), perhaps for want of memory",
    ):  # fmt: skip
        assert out.count(f"failed: {reason}\n") == 2, reason  # when it happens, and at the end
    assert out.count("dataset=faulty") >= 5
    assert "1 completed, 4 failed" in out
    Path("begun").unlink()
    out, _ = sweep(*words)
    assert out.startswith("5 runs, 1 of them finished already")
    assert out.count("completed in") == 4


TOY = ["dataset=kendall_toy", "backbone=mlp", "backbone.hidden=[16]", "trainer.batch_size=2", "trainer.log_every=50"]


def test_a_killed_sweep_goes_on_and_ends_as_if_nothing_had_happened(sweep):
    words = [*TOY, "trainer.epochs=15", "weighting=equal,mgda", "seed=0,1", "runtime.checkpoint_minutes=0.002"]
    process = start("-m", *words, "runtime.root=killed")
    wait_for(lambda: len(list(Path("killed/runs").glob("*/checkpoints/last.pt"))) >= 2)
    states = {entry.state for entry in read_entries([Path("killed")])}
    assert states == {"running", "waiting"}
    process.kill()
    process.communicate()
    # What ran saves a checkpoint, and ends.
    wait_for(lambda: all(entry.state == "interrupted" for entry in read_entries([Path("killed")])))
    assert all(read_record(folder)["steps"] > 0 for folder in run_folders("killed"))
    out, _ = sweep(*words, "runtime.root=killed")
    assert out.count("completed in") == 4
    assert sum(read_record(folder)["resumed"] for folder in run_folders("killed")) >= 2
    # Alone, in one process after the other: what ran beside a run makes no difference.
    sweep(*words, "runtime.root=alone", "hydra/launcher=basic")
    for folder in run_folders("alone"):
        other = Path("killed/runs") / folder.name
        assert all(torch.equal(one, two) for one, two in zip(best(folder), best(other), strict=True))
        assert read_record(folder)["test"] == read_record(other)["test"]


def test_ctrl_c_lets_runs_save_a_checkpoint():
    words = [*TOY, "trainer.epochs=2000", "seed=0,1,2"]
    process = start("-m", *words)
    wait_for(lambda: len(list(Path("outputs/runs").glob("*/checkpoints/last.pt"))) >= 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "stopped by SIGINT; the same command goes on from here" in err
    assert "saves a checkpoint first" in out
    assert {read_record(folder)["status"] for folder in run_folders()} == {"interrupted"}
    assert read_entries([Path("outputs")])[0].beat is None


# A method that does not come back from its first step, so that a signal is not noticed.
STUCK = """
import os, time
from mtlrun.weightings import Equal

class Stuck(Equal):
    def objective(self, losses):
        open(f"stuck-{os.getpid()}", "w").close()
        time.sleep(600)
        return super().objective(losses)
"""


@pytest.mark.slow
def test_ctrl_c_twice_ends_what_does_not_stop():
    Path("stuck.py").write_text(STUCK)
    process = start("-m", *TOY, "weighting._target_=stuck.Stuck", "seed=0,1", "hydra.launcher.workers=2")
    wait_for(lambda: len(list(Path().glob("stuck-*"))) == 2)
    process.send_signal(signal.SIGINT)
    while "saves a checkpoint first" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    assert [entry.state for entry in read_entries([Path("outputs")])] == ["running"] * 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert not any(lives(int(path.name.partition("-")[2])) for path in Path().glob("stuck-*"))
    assert [entry.state for entry in read_entries([Path("outputs")])] == ["killed"] * 2


def lives(pid):
    """Return True if a process has not ended, whether anybody has asked how or not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(what):
    """Wait until something is true."""
    deadline = time.monotonic() + 200
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)
