"""Runs of one study that were trained by other code say so."""

import json
import os

from helpers import QUICK, read_record, run_folders

from mtlrun.runs import other_code


def test_a_run_beside_those_of_another_commit_says_so(mtlrun, monkeypatch):
    assert mtlrun(*QUICK, "seed=1")[0] == 0
    (other,) = run_folders()
    assert read_record(other)["notes"] == []
    content = read_record(other)
    content["environment"]["mtlrun"] = {"commit": "0123456789abcdef", "dirty": False}
    (other / "record.json").write_text(json.dumps(content))
    code, out, _ = mtlrun(*QUICK, "seed=2")
    assert code == 0
    (run,) = (folder for folder in run_folders() if "-s2-" in folder.name)
    (note,) = read_record(run)["notes"]
    assert note.startswith("runs of this study were trained with other commits of mtlrun: 01234567 (1); this one with ")
    assert note in out.replace("\n", " ")
    # In a large study a run looks at those that ended last: here at this one, which is of the same commit.
    monkeypatch.setattr(other_code, "_MOST", 1)
    os.utime(other / "record.json", (0, 0))
    assert mtlrun(*QUICK, "seed=3")[0] == 0
    (run,) = (folder for folder in run_folders() if "-s3-" in folder.name)
    assert read_record(run)["notes"] == []
