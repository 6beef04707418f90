"""Runs on a small table, which the tests of this room share."""

from contextlib import chdir

import pytest
from trained_houses import ALL, train, write_table


@pytest.fixture(scope="session")
def houses(tmp_path_factory):
    """Return a folder with runs of three seeds with hard sharing, and of one without."""
    folder = tmp_path_factory.mktemp("houses")
    with chdir(folder):
        write_table("houses.csv")
        for words in (["seed=0"], ["seed=1"], ["seed=2"], ["model=single"]):
            train(ALL, *words)
    return folder


@pytest.fixture
def in_houses(houses, monkeypatch):
    """Work in that folder."""
    monkeypatch.chdir(houses)
    return houses
