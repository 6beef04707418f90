"""Signals that reach all processes of a run, as from a terminal or a cluster, and a training process that is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import read_record, run_folders
from torch.utils.data import Dataset

from mtlrun.datasets.batches.loading import Loader
from mtlrun.errors import STOP_SIGNALS, RunInterruptedError, WorkerDiedError
from mtlrun.records.folder import hold
from mtlrun.runs.signals import stop_signals, stopping_at_once

MODULE = """
import os, signal, time
from pathlib import Path

import torch
from torch.utils.data import Dataset, get_worker_info

from mtlrun.datasets import MultiTaskDataset


class Points(Dataset):
    def __init__(self, split, pause, pauses_in, dies):
        self.split, self.pause, self.pauses_in, self.dies = split, pause, pauses_in, dies

    def __len__(self):
        return 32

    def __getitem__(self, index):
        worker, phase = get_worker_info(), self.split if Path("outputs").exists() else "start"
        Path(f"{phase}-{os.getpid()}").touch()
        if self.pauses_in == phase:
            time.sleep(self.pause)
        if self.dies and worker and phase != "start":
            if worker.id == 0:  # a second signal would end the run at once
                os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)
        point = torch.tensor([index / 32, 1 - index / 32])
        return point, {"one": point[0], "two": point[1]}


class Slow(MultiTaskDataset):
    input_shape, task_names = (2,), ("one", "two")

    def __init__(self, pause=0.0, pauses_in=None, dies=False):
        self.pause, self.pauses_in, self.dies = pause, pauses_in, dies

    def split(self, name):
        return Points(name, self.pause, self.pauses_in, self.dies)
"""
OPTION = """# @package _global_
dataset: {_target_: slow_points.Slow, pause: 0.0, pauses_in: train, dies: false}
tasks:
  one: {_target_: mtlrun.tasks.Regression}
  two: {_target_: mtlrun.tasks.Regression}
"""
WORDS = [
    "--config-dir", "conf", "dataset=slow", "backbone=mlp", "backbone.hidden=[4]", "trainer.batch_size=2",
    "trainer.evaluate_every=1", "trainer.epochs=2", "runtime.num_workers=2", "runtime.quiet=true",
]  # fmt: skip


@pytest.fixture
def words(tmp_path):
    """Make a dataset whose samples may take their time, and return the words of a run on it."""
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/slow.yaml").write_text(OPTION)
    Path("slow_points.py").write_text(MODULE)
    return WORDS


@pytest.fixture
def start(words):
    """Return a function that starts a run in another session, and returns once it reads samples in a phase."""
    started = []

    def run(phase, pause):
        command = [sys.executable, "-m", "mtlrun", *words, f"dataset.pauses_in={phase}", f"dataset.pause={pause}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        while process.poll() is None and not list(Path().glob(f"{phase}-*")):
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
        return process

    yield run
    for process in started:
        for number in processes_of(process):
            os.kill(number, signal.SIGKILL)
        process.communicate()


def processes_of(process):
    """Return the numbers of the processes of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def wait_until_gone(process):
    stop = time.monotonic() + 3
    while processes_of(process) and time.monotonic() < stop:
        time.sleep(0.02)
    assert processes_of(process) == []


@pytest.mark.slow
def test_workers_of_a_killed_process_neither_hold_the_lock_nor_go_on(start):
    process = start("train", pause=100)
    process.kill()
    process.wait()
    (folder,) = run_folders()
    with hold(folder):
        pass
    wait_until_gone(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "phase"), [(signal.SIGTERM, "start"), (signal.SIGHUP, "train"), (signal.SIGINT, "test")]
)
def test_a_signal_to_all_processes_of_a_run_stops_it(number, phase, start):
    usual = signal.signal(number, signal.SIG_DFL)  # which the run inherits: under nohup, SIGHUP is ignored
    try:
        process = start(phase, pause=2 if phase == "start" else 0.05)
    finally:
        signal.signal(number, usual)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    if phase == "start":
        assert err == ""
        assert not run_folders()
    else:
        assert err == f"mtlrun: stopped by {number.name}; the same command goes on from here\n"
        assert read_record(run_folders()[0])["status"] == "interrupted"
    wait_until_gone(process)


def test_workers_that_die_with_a_signal_to_the_run_are_no_error(words, mtlrun):
    code, _, err = mtlrun(*words, "dataset.dies=true")
    assert code == 143
    assert err == "mtlrun: stopped by SIGTERM; the same command goes on from here\n"
    (folder,) = run_folders()
    assert read_record(folder)["status"] == "interrupted"
    assert (folder / "checkpoints" / "last.pt").exists()


class Numbers(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        return torch.tensor([float(index)]), {"a": torch.tensor(float(index))}


def test_workers_go_on_when_all_processes_are_asked_to_stop_and_can_be_ended():
    loader = Loader(Numbers(), 2, shuffle=False, num_workers=2)
    batches = loader.batches()
    next(batches)
    workers = multiprocessing.active_children()
    for worker in workers:
        for number in STOP_SIGNALS:
            os.kill(worker.pid, number)
    assert len(list(batches)) == 199
    for worker in workers:
        worker.terminate()
        worker.join(timeout=5)
        assert worker.exitcode == -signal.SIGTERM


def test_the_death_of_a_worker_is_an_error_only_where_a_batch_is_waited_for():
    batches = Loader(Numbers(), 2, shuffle=False, num_workers=2).batches()
    next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(0.1)  # in which PyTorch would have raised an error
    with pytest.raises(WorkerDiedError, match="a process that loads samples died"):
        next(batches)


def test_a_signal_that_other_code_catches_stops_at_the_end_of_the_block():
    def catch():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Exception:
            caught.append(True)

    caught = []
    with pytest.raises(RunInterruptedError, match="SIGTERM"), stopping_at_once():
        catch()
    assert caught


def test_a_program_that_is_to_outlive_its_terminal_does():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop_signal() is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_a_second_signal_stops_at_once_what_a_script_has_started_in_the_background():
    def interrupt_twice():
        with stop_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop_signal() == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_twice()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)
