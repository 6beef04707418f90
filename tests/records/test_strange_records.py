"""Files named record.json that are none: they stop neither their run nor `compare`, and are never believed."""

import copy
import json
import random
from pathlib import Path

import pytest
from helpers import QUICK, read_record, run_folders

from mtlrun.cli.compare import main as compare
from mtlrun.cli.show import show
from mtlrun.errors import RecordError
from mtlrun.records import record as module
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record, find_record

NO_RECORDS = [b"", b"[]", b"3", b"{}", b"null", b"\xff\xfe\x00", b'{"run_id": "a"}', b"[" * 100_000,
              b'{"run_id": "x", "status": "completed"}', b'{"run_id": "x", "config": [], "status": "completed"}',
              b'{"run_id": 3, "config": {"names": {}}}', b'{"run_id": "x", "config": {"names": {}}, "data": {"a": {}}}',
              b'{"run_id": "x", "config": {"names": {}}, "schema_version": 1, "splits": 3}']  # fmt: skip

GARBAGE = [None, True, 3, -1, 2.5, float("nan"), float("inf"), "x", "", [], {}, [1], [None], [[]], {"x": 1},
           {"a": {"b": [1]}}, {"loss": None}]  # fmt: skip

CONFIG = {
    "names": {"dataset": "table", "data": "table", "model": "hard", "weighting": "equal"},
    "runtime": {"root": "outputs", "study": "runs", "rerun": False, "quiet": False},
    "trainer": {"baselines": True},
    "dataset": {"path": "table.csv", "fold": 1, "num_folds": 5, "targets": {"y": "y"}},
    "tasks": {"y": {"_target_": "mtlrun.tasks.Regression"}},
    "seed": 0,
}


@pytest.fixture(autouse=True)
def _with_a_part_of_a_config(monkeypatch):
    """Let a config without most of its groups name a folder, too."""
    monkeypatch.setattr(module, "find_folder", run_folder)


def whole(config=CONFIG):
    """Return the record of a completed run as JSON has it, with something in each field that is shown."""
    metrics = {"y": {"loss": 0.5, "r2": 0.25}}
    record = Record(
        module.run_id(config),
        config,
        status="completed",
        directions={"y": {"loss": "min", "r2": "max"}},
        main_metrics={"y": "r2"},
        selection=[{"tasks": ["y"], "rule": "per_task", "epoch": 2, "step": 8, "skill": 0.1, "stand_ins": {"a": "b"}}],
        skills={"y": {"selected": 0.1, "best": 0.2, "best_epoch": 1, "best_step": 4}},
        val=metrics,
        test=metrics,
        intervals={"test": {"y": {"loss": [0.25, 0.75]}}},
        bootstrap={"resamples": 1000, "groups": False, "drawn_from": {"y": 13}, "undefined": {"y": {"r2": 0.5}},
                   "by_wilson": {"y": ["r2"]}},
        trivial={"test": metrics},
        baselines={"linear": {"y": {"loss": 0.1, "r2": 0.9}}},
        splits={"test": {"samples": 13, "labeled": {"y": 13}, "fingerprint": "ab"}},
        learned={"targets": {"y": {"columns": ["y"], "labels": {"a": {"test": 3}, "b": {"test": 4}}, "positive": "a"}},
                 "inputs": {"columns": {"x": {}}, "excluded": []}},
        data={"table.csv": {"files": 1, "size": 3, "names": "a", "times": "b", "newest": 1.0, "content": "c"}},
        match={"width": 1.0, "parameters": 3, "reference_parameters": 3},
        seconds={"train": 1.5},
        started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return json.loads(json.dumps(vars(record)))


def write(content, name):
    """Write a record into a folder, and return the folder."""
    folder = Path("outputs/runs", name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(content))
    return folder


def places(content, at=()):
    """Yield the path of each value in a tree of dictionaries and lists."""
    yield at
    for key in content if isinstance(content, dict) else range(len(content) if isinstance(content, list) else 0):
        yield from places(content[key], (*at, key))


def replaced(content, at, value):
    """Return a tree with another value in one place."""
    if not at:
        return value
    changed = copy.copy(content)
    changed[at[0]] = replaced(content[at[0]], at[1:], value)
    return changed


@pytest.mark.parametrize("content", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_a_file_that_is_no_record_is_named(content, tmp_path):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"record\.json is no record of a run \("):
        Record.read(tmp_path)


def test_garbage_anywhere_in_a_record_ends_neither_compare_nor_its_run(tmp_path, capsys):
    """Each value is replaced by some of another kind; what is left must be shown, compared, or refused as a record."""
    content, draw, shown_once = whole(), random.Random(0), False
    folder = write(content, module.run_id(CONFIG))
    assert find_record(CONFIG)[1] == ""
    write(whole({**CONFIG, "seed": 1}), "other")
    for at in places(content):
        if at == ("schema_version",):
            continue  # a larger number is that of a later version, whose record is not replaced
        for value in draw.sample(GARBAGE, 3):
            (folder / "record.json").write_text(json.dumps(replaced(content, at, value)))
            record, problem = find_record(CONFIG)
            if record is not None and record.status in ("completed", "diverged"):
                show(record, CONFIG, again=True)
                shown_once = True
            assert problem == "" or problem.startswith(f"{folder}/record.json ")
            assert compare(["outputs"]) == 0, (at, value)
            shown = capsys.readouterr()
            assert "y r2" in shown.out, (at, value)
            assert shown.err.count("\n") <= 1
    assert shown_once


def test_null_where_a_number_belongs_is_nan(tmp_path):
    """Programs that rewrite JSON often put it there."""
    content = whole()
    content["test"]["y"]["loss"] = None
    record = Record.read(write(content, "a"))
    assert record.test["y"]["loss"] != record.test["y"]["loss"]


def test_only_a_record_of_this_run_with_its_results_is_believed():
    content = whole()
    folder = write(content, module.run_id(CONFIG))
    assert find_record(CONFIG)[0].test == content["test"]
    for key, value, problem in [
        ("run_id", "x", "is the record of another run"),
        ("config", {**CONFIG, "seed": 1}, "is the record of another run"),
        ("config", {**CONFIG, "tasks": {}}, "is the record of another run"),
        ("test", {}, "`status` is completed, and `test` lacks r2 of y"),
        ("test", {"y": {"loss": 0.5}}, "`status` is completed, and `test` lacks r2 of y"),
        ("directions", {}, "without a direction of r2, the main metric of y"),
        ("main_metrics", {}, "lacks task y of this run"),
        ("status", "done", "`status` has a wrong type"),
        ("data", {"a": {"files": 1}}, "`data` has a wrong type"),
        ("splits", [], "`splits` has a wrong type"),
        ("protocol", "legacy", "`protocol` is legacy, and `selection` is not one mean"),
    ]:
        write({**content, key: value}, folder.name)
        record, found = find_record(CONFIG)
        assert record is None
        assert f"{folder}/record.json" in found
        assert problem in found
    # What cannot change a result may differ.
    runtime, trainer = {**CONFIG["runtime"], "device": "cpu"}, {"baselines": False}
    write({**content, "config": {**CONFIG, "runtime": runtime, "trainer": trainer}}, folder.name)
    assert find_record(CONFIG)[1] == ""


def test_compare_names_what_it_leaves_out(mtlrun):
    write(whole(), "good")
    for number, content in enumerate(NO_RECORDS):
        Path(f"outputs/runs/{number}").mkdir()
        Path(f"outputs/runs/{number}/record.json").write_bytes(content)
    Path("outputs/runs/folder/record.json").mkdir(parents=True)
    write(whole() | {"schema_version": 99}, "later")
    code, out, err = mtlrun("compare", "outputs")
    assert code == 0
    assert "0.2500" in out
    lines = err.splitlines()
    assert len(lines) == len(NO_RECORDS) + 2
    assert all(line.startswith("mtlrun: outputs/runs/") and line.endswith("; it is left out") for line in lines)
    assert "mtlrun: outputs/runs/folder/record.json cannot be read (Is a directory); it is left out" in lines
    code, out, err = mtlrun("compare", "outputs/runs/3")
    assert (code, out) == (2, "")
    assert err == (
        "mtlrun: outputs/runs/3: outputs/runs/3/record.json is no record of a run (without `run_id` and `config`)\n"
    )


def test_a_strange_record_is_named_and_kept_and_its_run_goes_on(mtlrun):
    assert mtlrun(*QUICK)[0] == 0
    (folder,) = run_folders()
    path, expected = folder / "record.json", read_record(folder)["test"]
    kept = folder / "record.json.bad"
    for content in (b'{"run_id": "x", "status": "completed"}', b"\xff", "folder"):
        path.unlink()
        if content == "folder":
            kept.unlink()
            path.mkdir()
        else:
            path.write_bytes(content)
        code, _, err = mtlrun(*QUICK)
        assert code == 0, err
        assert read_record(folder)["test"] == expected
        log = (folder / "run.log").read_text()
        assert f"{path} " in log
        assert "so whether the data have changed since this run was begun cannot be known; it is kept as " in log
        assert kept.is_dir() if content == "folder" else kept.read_bytes() == content
