"""Whatever happens to a run on the way, the same command again ends as a run that nothing has happened to, bit by bit.

A run is disturbed at one of the changes that it makes to its files: it is killed, before the change or half way through
a write; a signal arrives; or the change fails, once or from then on, as on a full disk. A few such cases run always.
All changes of all kinds of runs: `pytest -m faults` (an hour on two cores).
"""

import json
import shutil
import signal
from functools import cache
from pathlib import Path

import pytest
from fault_kinds import KINDS, command, make_files, write_table
from fault_outcome import differences
from fork_server import ForkServer
from injector import FAULTS, Change, sizes_after, sizes_on_disk, unsynced_names

_SIGNALS = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT}
_REASONS = {"enospc": "No space left on device", "full": "No space left on device", "eio": "Input/output error",
            "dead": "Input/output error", "readonly": "Read-only file system"}  # fmt: skip


@pytest.fixture(scope="session")
def server():
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def twin_of(server, tmp_path_factory):
    """Return a function that returns the twin of a kind of run."""
    return cache(lambda kind: Twin(server, kind, tmp_path_factory.mktemp(kind)))


class Twin:
    """A run of a kind that nothing happens to, and what others start from."""

    def __init__(self, server, kind, folder):
        self.server, self.kind, self.folder = server, kind, Path(folder)
        make_files(self.folder / "start")
        whole = self.copy("whole")
        answer = server.run(whole, *command(kind))
        assert answer["code"] == 0, answer["err"]
        self.outcome, self.old = answer["outcome"], None
        changes, folder = answer["changes"], whole
        if kind == "rerun":  # of a run on other data
            write_table(self.folder / "start", seed=1)
            answer = server.run(self.folder / "start", *command(kind))
            self.old = answer["outcome"]
            assert differences(self.outcome, self.old)
            write_table(self.folder / "start", seed=0)
            folder = self.copy("again")
            answer = server.run(folder, *command(kind))
            assert not differences(self.outcome, answer["outcome"])
            changes = answer["changes"]
        self.changes = [Change(name, path, tuple(detail) if isinstance(detail, list) else detail)
                        for name, path, detail in changes]  # fmt: skip

    def copy(self, name):
        """Return a new folder with the files that the run reads, and with the old run, if it is a rerun."""
        return Path(shutil.copytree(self.folder / "start", self.folder / name))

    def find(self, kind, file):
        """Return the numbers of the changes of a kind to files whose path, or new path, ends so."""
        return [
            number
            for number, change in enumerate(self.changes)
            if change.kind == kind and str(change.detail if kind == "rename" else change.path).endswith(file)
        ]

    def disturb(self, fault, at):
        """Return what is wrong after a fault and after the same command again."""
        folder = self.copy(f"{fault}-{at}")
        answer = self.server.run(folder, *command(self.kind), fault=fault, at=at)
        wrong = _wrong_after(fault, answer, self.new_record(folder), self.changes[at])
        if self.kind == "rerun":
            twice = Path(shutil.copytree(folder, self.folder / f"{fault}-{at}-again"))
            wrong += self.continue_in(twice, [word for word in command(self.kind) if word != "runtime.rerun=true"])
        wrong += self.continue_in(folder, command(self.kind))
        return [f"{self.kind}: {fault} at {at} ({self.changes[at]}): {line}" for line in wrong]

    def new_record(self, folder):
        """Return the record of a run, None if there is none but that of the old run, untouched or to be removed."""
        paths = list(folder.glob("outputs/*/*/record.json"))
        text = paths[0].read_text() if paths and not (paths[0].parent / ".removing").exists() else None
        old = [path.read_text() for path in self.folder.glob("start/outputs/*/*/record.json")]
        return None if text is None or text in old else json.loads(text)

    def continue_in(self, folder, words):
        """Return what is wrong after a command line in a folder that was disturbed, and remove it."""
        answer = self.server.run(folder, *words)
        shutil.rmtree(folder)
        if answer["code"]:
            return [f"again: exit {answer['code']}: {answer['err'][-600:]}"]
        # Nothing of the old run may have been removed if its result is shown as what it is: that of other data.
        says_it_is_old = "train anew with runtime.rerun=true" in answer["err"] + answer["out"]
        return differences(self.old if self.old and says_it_is_old else self.outcome, answer["outcome"])


def _wrong_after(fault, answer, record, change):
    """Return what is wrong with exit code, messages and status after a fault."""
    code, lines = answer["code"], answer["err"].splitlines()
    status = record and record["status"]
    wrong = [f"a traceback: {answer['err'][-600:]}"] if "Traceback" in answer["err"] + answer["out"] else []
    if fault in ("kill", "half"):
        if code != -signal.SIGKILL:
            wrong.append(f"exit {code}")
    elif code == 0:
        if status != "completed":
            wrong.append(f"exit 0, and status {status}")
    elif fault in _SIGNALS:
        number = _SIGNALS[fault]
        if code not in (128 + number, -number) or status not in (None, "interrupted"):
            wrong.append(f"exit {code}, status {status}")
    else:
        if len(lines) != 1 or not lines[0].startswith("mtlrun: ") or _REASONS[fault] not in lines[0]:
            wrong.append(f"{len(lines)} lines: {answer['err'][-600:]}")
        expected = {"failed"} if fault in ("enospc", "eio") else {"failed", "running"}
        if change.kind == "fsync" and change.path.count("/") == 1 and fault in ("full", "dead", "readonly"):
            expected.add("completed")  # the record is there, and that its name is on the disk cannot be known
        if code != 1 or status not in expected | {None}:
            wrong.append(f"exit {code}, status {status}")
        if status == "failed" and lines and record["error"] not in lines[0]:
            wrong.append(f"{lines[0]}, and in the record {record['error']}")
    return wrong


def _due(changes, fault):
    """Return the numbers of the changes at which a fault is tried.

    A kill and a full disk at each, half a write at each write, and the rest in turn, so that each kind of change meets
    each fault in some run; both signals at the end, when the result is found and written.
    """
    numbers = range(len(changes))
    if fault in ("kill", "full"):
        return list(numbers)
    if fault == "half":
        return [number for number in numbers if changes[number].kind == "write"]
    if fault in _SIGNALS:
        return [number for number in numbers if number % 2 == (fault == "sigint") or number >= len(numbers) - 30]
    others = ["enospc", "eio", "dead", "readonly"]
    return [number for number in numbers if number % len(others) == others.index(fault)]


def _cases():
    """Yield each kind with each fault."""
    for kind in KINDS:
        for fault in FAULTS:
            yield pytest.param(kind, fault, id=f"{kind}-{fault}")


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "fault"), list(_cases()))
def test_every_change_of_every_kind_of_run(kind, fault, twin_of):
    twin = twin_of(kind)
    wrong = [line for at in _due(twin.changes, fault) for line in twin.disturb(fault, at)]
    assert wrong == []


# (kind of run, fault, kind of change, the file or what it becomes, which of these changes)
SAMPLE = [
    ("checkpoints", "kill", "rename", "checkpoints/last.pt", 1),
    ("checkpoints", "half", "write", "checkpoints/.fresh.pt.tmp", 3),
    ("workers", "sigterm", "rename", "config.yaml", 0),
    ("workers", "half", "write", ".mtlrun", 4),
    ("files", "half", "write", ".predictions.csv.tmp", 0),
    ("files", "enospc", "write", "metrics.jsonl", 0),
    ("files", "eio", "write", "run.log", 1),
    ("files", "enospc", "write", ".mtlrun", 2),
    ("files", "full", "write", ".mtlrun", 1),
    ("files", "readonly", "rename", "record.json", 1),
    ("rerun", "kill", "unlink", "checkpoints/previous.pt", 0),
]


def test_a_sample_of_faults(twin_of):
    wrong = []
    for kind, fault, change, file, which in SAMPLE:
        twin = twin_of(kind)
        wrong += twin.disturb(fault, twin.find(change, file)[which])
    assert wrong == []


@pytest.mark.slow
def test_no_change_of_a_file_is_missed_and_names_are_on_the_disk_in_time(server, tmp_path):
    for kind in KINDS:
        make_files(tmp_path / kind)
        changes = server.run(tmp_path / kind, *command(kind))["changes"]
        assert sizes_after(Change(*change) for change in changes) == sizes_on_disk(tmp_path / kind / "outputs")
        if kind == "rerun":
            changes += server.run(tmp_path / kind, *command(kind))["changes"]
        changes = [Change(*change) for change in changes]
        assert unsynced_names(changes) == []
        assert unsynced_names([change for change in changes if change.kind != "fsync"]) != []
