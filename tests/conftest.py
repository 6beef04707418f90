"""What all tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtlrun.cli import dispatch

# A run of a second or two: 3 epochs of 4 steps, a tiny network.
QUICK = [
    "backbone=mlp",
    "backbone.hidden=[16]",
    "dataset.pairs_per_image=1",
    "dataset.size=10",
    "trainer.epochs=3",
    "trainer.limit_batches=4",
    "trainer.log_every=3",
    "runtime.quiet=true",
]


@pytest.fixture(autouse=True)
def _seed_and_folder(tmp_path, monkeypatch):
    """Give each test the same random numbers and an empty current folder."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Keep test processes that run side by side from slowing each other down."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def mtlrun(capsys):
    """Return a function that runs a command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        code = dispatch(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def quick(mtlrun):
    """Return a function that trains a run of a second, with more overrides, and returns its folder."""

    def run(*arguments):
        before = set(run_folders())
        code, _, err = mtlrun(*QUICK, *arguments)
        assert code == 0, err
        (folder,) = set(run_folders()) - before
        return folder

    return run


def run_folders(root="outputs"):
    """Return all run folders below `root`."""
    return [path.parent for path in Path(root).glob("**/record.json")]


def read_record(folder):
    """Return the record of a run as a dictionary."""
    return json.loads((Path(folder) / "record.json").read_text())


def start(*arguments):
    """Start a command line in a process of its own."""
    command = [sys.executable, "-m", "mtlrun", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
