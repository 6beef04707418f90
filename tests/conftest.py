"""What all tests share."""

import os

import pytest
import torch
from helpers import QUICK, run_folders
from hydra._internal.hydra import Hydra

from mtlrun.cli.main import dispatch


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark `fast` whatever is not marked `slow`, so that a new test is fast unless it says otherwise."""
    for item in items:
        if item.get_closest_marker("slow") is None:
            item.add_marker("fast")


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


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """Let files be written without waiting for the disk: what is written is the same, and no test cuts the power.

    A file that is closed already is refused as ever. Processes that a test starts wait.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_composition():
    """Spare Hydra from composing each config twice, where that cannot make a difference.

    The first time, Hydra only looks for `hydra.mode`, which none of the shipped files sets.
    """
    get_mode = Hydra.get_mode

    def mode(self, config_name, overrides):
        folders = self.config_loader.get_search_path().get_path()
        users = any(folder.provider == "command-line" for folder in folders)
        return get_mode(self, config_name, overrides) if users or "hydra." in " ".join(overrides) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", mode)
        yield


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
