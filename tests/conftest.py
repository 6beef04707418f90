"""What all tests share."""

import gc
import os

import hydra_shortcuts
import pytest
import sweep_shortcuts
import torch
from helpers import QUICK, run_folders

from mtlrun.cli.main import dispatch

# Looked at once in a process, at its first product of matrices on a GPU; deterministic algorithms need it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_finish():
    """Spare the collector of garbage from going through all that was imported, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


#: Marks of what runs only where the expression after -m names it: an hour of disturbed runs, a browser, all cases of
#: products of which a sample always runs, and what needs a GPU.
_ON_REQUEST = ("faults", "browser", "exhaustive", "gpu")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark `fast` whatever is not marked `slow`, so that a new test is fast unless it says otherwise.

    What is only run on request is left out where nobody asks for it.
    """
    on_request = {mark: [item for item in items if item.get_closest_marker(mark)] for mark in _ON_REQUEST}
    for mark, marked in on_request.items():
        if marked and mark not in config.option.markexpr:
            config.hook.pytest_deselected(items=marked)
            items[:] = [item for item in items if item not in marked]
    not_fast = {id(item) for marked in on_request.values() for item in marked}
    for item in items:
        if item.get_closest_marker("slow") is None and id(item) not in not_fast:
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
def _hydra_shortcuts():
    with pytest.MonkeyPatch.context() as patch:
        hydra_shortcuts.take(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _sweep_shortcuts():
    with pytest.MonkeyPatch.context() as patch:
        sweep_shortcuts.take(patch)
        yield
    sweep_shortcuts.leave()


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
