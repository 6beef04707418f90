"""Heartbeats: the state of a run that they tell, and damaged ones, which count as none."""

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from mtlrun.records.heartbeat import Heartbeat, state_of
from mtlrun.runs import heartbeat as heartbeats


def test_a_heartbeat_is_read_as_it_was_written(tmp_path):
    beat = Heartbeat(step=5, total_steps=9, epoch=2, metrics={"first": {"rmse": 0.5}})
    beat.write(tmp_path)
    assert Heartbeat.read(tmp_path) == beat
    assert state_of(None, beat) == "running"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"pid": 2**22 + 1}, "killed"),
        ({"at": time.time() - 300}, "silent"),
        ({"at": time.time() - 300, "host": "elsewhere"}, "silent"),
        ({"pid": 2**22 + 1, "host": "elsewhere"}, "running"),
    ],
)
def test_the_state_of_a_run_that_has_not_ended(change, state):
    here = {"pid": os.getpid(), "host": platform.node(), "at": time.time()}
    assert state_of(None, Heartbeat(**here | change)) == state


def test_a_run_that_nobody_has_asked_for_its_end_is_killed_nevertheless():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    beat = Heartbeat(pid=process.pid)
    assert state_of(None, beat) == "running"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, which in a container may stay
    assert state_of(None, beat) == "killed"
    process.communicate()


def test_the_time_that_is_left_does_not_follow_a_clock_that_is_set(tmp_path, monkeypatch):
    trainer = SimpleNamespace(
        total_steps=40, first_step_at=None, progress=SimpleNamespace(step=0, epoch=0), newest_metrics={}
    )
    clock = {"time": 5000.0, "monotonic": 100.0}
    for name in clock:
        monkeypatch.setattr(time, name, lambda name=name: clock[name])
    monkeypatch.setattr(heartbeats, "repeating", lambda write, name: nullcontext(writes.append(write)))
    writes = []
    with heartbeats.beating(tmp_path, trainer):
        (write,) = writes
        write()
        trainer.first_step_at, trainer.progress.step = 0.0, 10
        clock |= {"time": 2000.0, "monotonic": 120.0}
        write()
        assert Heartbeat.read(tmp_path).seconds_left == 60  # 30 steps, 2 seconds each
        clock["time"] = 2015.0
        assert Heartbeat.read(tmp_path).seconds_left == 45
        clock["time"] = 9000.0
        assert Heartbeat.read(tmp_path).seconds_left == 0


def test_a_damaged_heartbeat_counts_as_none_and_status_goes_on(tmp_path, mtlrun):
    run = tmp_path / "outputs" / "runs" / "x"
    run.mkdir(parents=True)
    good = json.loads(json.dumps(vars(Heartbeat())))
    texts = ["[" * 100_000, "", "null", "[]", "\x00"]
    for key, values in {
        "metrics": ["abc", {"first": None}, {"first": {"rmse": "abc"}}, {"rmse": None}],
        "at": [float("inf"), float("nan"), "5", 10**400],
        "pid": ["12", float("inf"), None], "step": ["3", 10**400], "seconds": [float("nan")], "first_step": [None],
    }.items():  # fmt: skip
        texts += [json.dumps(good | {key: value}) for value in values]
    (run / "record.json").write_text("{}")
    (run.parent / ".sweeps").mkdir()
    for text in texts:
        (run / ".heartbeat").write_text(text)
        (run.parent / ".sweeps" / "a-1.json").write_text(text)
        assert Heartbeat.read(run) is None, text[:80]
        assert mtlrun("status", "outputs")[0] == 0
