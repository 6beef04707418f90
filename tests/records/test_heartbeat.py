"""Heartbeats: the state of a run that they tell, and damaged ones, which count as none."""

import json
import os
import platform
import time

import pytest

from mtlrun.records.heartbeat import Heartbeat, state_of


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


def test_a_damaged_heartbeat_counts_as_none_and_status_goes_on(tmp_path, mtlrun):
    run = tmp_path / "outputs" / "runs" / "x"
    run.mkdir(parents=True)
    good = json.loads(json.dumps(vars(Heartbeat())))
    texts = ["[" * 100_000, "", "null", "[]", "\x00"]
    for key, values in {
        "metrics": ["abc", {"first": None}, {"first": {"rmse": "abc"}}, {"rmse": None}],
        "at": [float("inf"), float("nan"), "5", 10**400],
        "pid": ["12", float("inf"), None], "step": ["3", 10**400], "began": [float("nan")], "first_step": [None],
    }.items():  # fmt: skip
        texts += [json.dumps(good | {key: value}) for value in values]
    (run / "record.json").write_text("{}")
    (run.parent / ".sweeps").mkdir()
    for text in texts:
        (run / ".heartbeat").write_text(text)
        (run.parent / ".sweeps" / "a-1.json").write_text(text)
        assert Heartbeat.read(run) is None, text[:80]
        assert mtlrun("status", "outputs")[0] == 0
