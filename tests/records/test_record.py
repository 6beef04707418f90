"""The record and the run folder: schema versions, file names, atomic writes."""

import ast
import json
from pathlib import Path

import pytest

from mtlrun.errors import DataError, StorageError
from mtlrun.records import folder as table
from mtlrun.records.folder import open_atomically, start_anew
from mtlrun.records.record import Record

SOURCE = Path(__file__).parents[2] / "src" / "mtlrun"
NAMES = {value for name, value in vars(table).items() if name.isupper() and isinstance(value, str)}

VERSION_1 = {
    "run_id": "multidigits-single-equal-s0-0a1b2c3d",
    "config": {"names": {"dataset": "multidigits", "weighting": "equal"}, "seed": 0, "trainer": {"select": "gain"}},
    "status": "completed",
    "directions": {"left": {"accuracy": "max"}},
    "main_metrics": {"left": "accuracy"},
    "selection": [
        {"tasks": ["left"], "rule": "gain", "epoch": 2, "step": 8},
        {"tasks": ["right"], "rule": "left/loss", "epoch": 3, "step": 12},
    ],
    "test": {"left": {"accuracy": 0.5}},
    "splits": {"train": {"samples": 7, "labelled": {"left": 5}, "fingerprint": "ab"}},
    "multiply_adds": 1234,
    "match": {"width": 2.5, "parameters": 99, "wanted": 100},
    "schema_version": 1,
}


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(content))


def test_a_record_of_version_1_is_read_under_the_names_of_version_2(tmp_path):
    write(tmp_path, VERSION_1)
    record = Record.read(tmp_path)
    assert record.schema_version == 2
    assert record.macs == 1234
    assert record.splits == {"train": {"samples": 7, "labeled": {"left": 5}, "fingerprint": "ab"}}
    assert [entry["rule"] for entry in record.selection] == ["mean_relative_gain", "left/loss"]
    assert record.match == {"width": 2.5, "parameters": 99, "reference_parameters": 100}
    assert record.config == VERSION_1["config"]  # as it was composed
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


def test_compare_reads_a_record_of_version_1(mtlrun, tmp_path):
    write(tmp_path / "old", VERSION_1)
    code, out, err = mtlrun("compare", "old")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["0.5000", "1"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"old")

    def fill_up():
        with open_atomically(path) as file:
            file.write(b"ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space"):
        fill_up()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left
    with open_atomically(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_cannot_be_written_leaves_no_temporary_file(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StorageError, match="No space"):
        Record("x", {}).write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_file_names_of_the_run_folder_stand_in_one_table():
    assert {"record.json", "metrics.jsonl", "splits.json", "events.out.tfevents.*", "checkpoints"} <= NAMES
    names = NAMES | {"last.pt", "previous.pt", "best.pt", "fresh.pt"}
    elsewhere = {
        f"{path.relative_to(SOURCE)}: {node.value}"
        for path in SOURCE.rglob("*.py")
        if path not in (SOURCE / "records" / "folder.py", SOURCE / "records" / "lock.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert elsewhere == set()


def test_starting_anew_removes_what_a_run_writes_and_nothing_else(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    written = ["record.json", "config.yaml", "metrics.jsonl", "splits.json", "run.log", "events.out.tfevents.7.mtlrun",
               "checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt"]  # fmt: skip
    for name in [*written, "notes.txt", "checkpoints/notes.txt"]:
        (tmp_path / name).write_text("")
    start_anew(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["checkpoints/notes.txt", "notes.txt"]


def test_a_record_of_a_later_version_is_refused_by_name(tmp_path):
    (tmp_path / "record.json").write_text('{"run_id": "a", "config": {}, "schema_version": 9}')
    with pytest.raises(DataError, match=r"record\.json has schema version 9, and this version of mtlrun reads up to 2"):
        Record.read(tmp_path)
