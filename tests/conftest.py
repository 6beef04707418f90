"""What all tests share."""

import os

import pytest
import torch
from helpers import QUICK, run_folders

from mtlrun.cli.main import dispatch


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
