"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed_and_folder(tmp_path, monkeypatch):
    """Give each test the same random numbers and an empty current folder."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Keep test processes that run side by side from slowing each other down."""
    torch.set_num_threads(1)
