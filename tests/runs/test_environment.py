"""What a record holds of the code and of the time that a run was made with."""

import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import torch
from helpers import read_record

import mtlrun
from mtlrun.runs import recording
from mtlrun.setup import environment


def describe():
    """Return what a process that begins now writes down."""
    environment.describe_code.cache_clear()
    return environment.describe(torch.device("cpu"))


def test_the_commit_of_mtlrun_is_recorded_and_not_that_of_a_project_in_which_it_is_installed(monkeypatch, request):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    package = Path("env/site-packages/mtlrun").absolute()
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    Path("conf").mkdir()
    Path("conf/config.yaml").write_text("")
    git("commit", "--allow-empty", "-m", "without mtlrun")
    monkeypatch.setattr(mtlrun, "__file__", str(package / "__init__.py"))
    request.addfinalizer(environment.describe_code.cache_clear)
    found = describe()
    assert found["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    assert found["mtlrun"] is None
    git("add", ".")
    git("commit", "-m", "with mtlrun")
    Path("notes").write_text("")  # no code
    commit = git("rev-parse", "HEAD")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setenv("GIT_DIR", "nowhere")
    assert describe()["mtlrun"] == {"commit": commit, "dirty": False}
    for changed in (package / "new.py", package.parents[2] / "conf" / "config.yaml"):
        changed.write_text("# changed")
        assert describe()["mtlrun"] == {"commit": commit, "dirty": True}
        changed.write_text("") if changed.suffix == ".yaml" else changed.unlink()


def test_a_clock_that_is_set_back_gives_no_negative_times_and_is_mentioned(monkeypatch, quick):
    class SetBack(datetime):
        hours = 24

        @classmethod
        def now(cls, *arguments):
            cls.hours -= 1
            return datetime.now(*arguments) + timedelta(hours=cls.hours)

    monkeypatch.setattr(recording, "datetime", SetBack)
    monkeypatch.setattr(time, "time", lambda: SetBack.now().timestamp())
    folder = quick()
    record = read_record(folder)
    assert record["ended"] < record["started"]
    assert all(0 <= seconds < 600 for seconds in record["seconds"].values())
    assert any("the clock was set back" in note for note in record["notes"])
    assert "the clock was set back" in (folder / "run.log").read_text()
