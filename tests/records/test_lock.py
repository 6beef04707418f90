"""The lock of a run folder: held by one process, also where the file system has no locks, and never lost unnoticed."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import QUICK, run_folders

from mtlrun.errors import LockLostError, RunInUseError
from mtlrun.records.folder import hold, open_atomically
from mtlrun.training.trainer import Trainer

FOLDER = Path("run")
HOLD = """
import errno, fcntl, sys, time
from pathlib import Path
from mtlrun.records.folder import hold

def without_locks(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")

if sys.argv[1] == "without locks":
    fcntl.flock = without_locks
with hold(Path("run")):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold_elsewhere():
    """Return a function that starts a process that holds the folder."""
    processes = []

    def start(kind):
        process = subprocess.Popen([sys.executable, "-c", HOLD, kind], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def refusing_flock(monkeypatch):
    """Return a function after which flock fails with an error number."""

    def refuse(number):
        def fail(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", fail)

    return refuse


def refusal():
    with pytest.raises(RunInUseError) as caught, hold(FOLDER):
        pass
    return str(caught.value)


@pytest.mark.parametrize("kind", ["with locks", "without locks"])
def test_a_folder_is_held_by_one_process_until_that_ends_in_whatever_way(kind, hold_elsewhere, refusing_flock):
    process = hold_elsewhere(kind)
    if kind == "without locks":
        refusing_flock(errno.ENOLCK)
    message = refusal()
    assert f"run is being trained by process {process.pid} on " in message
    assert ("remove run/.holder" in message) == (kind == "without locks")
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as after `kill -9` from a shell
    with hold(FOLDER):
        assert "process" in refusal()  # nor may the same process hold it twice
    with hold(FOLDER):
        pass


REFUSALS = [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM]


def test_a_file_system_without_locks_is_named_and_no_other_process_is(refusing_flock, mtlrun):
    for number in REFUSALS:
        refusing_flock(number)
        with hold(FOLDER) as lock:
            assert f"has no locks ({os.strerror(number)})" in lock.note
            assert "if that process has ended, remove run/.holder" in refusal()
    code, out, _ = mtlrun(*QUICK)
    assert code == 0
    (folder,) = run_folders()
    for text in (out, (folder / "run.log").read_text()):
        assert f"has no locks ({os.strerror(REFUSALS[-1])})" in " ".join(text.split())
    assert not (folder / ".holder").exists()


def test_only_these_errors_are_a_lock_that_another_process_holds(refusing_flock):
    for number in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
        refusing_flock(number)
        assert "run is being trained by another process" in refusal()


def test_without_locks_a_holder_that_cannot_be_known_to_have_ended_is_left_alone(refusing_flock):
    refusing_flock(errno.ENOSYS)
    with hold(FOLDER):
        holder = json.loads((FOLDER / ".holder").read_text())
    others = [
        holder | {"machine": "another start or container"},
        holder | {"host": "elsewhere", "machine": None},
        {"process": 1},
    ]
    for text in [*map(json.dumps, others), "", "[]", "\0\0"]:
        (FOLDER / ".holder").write_text(text)
        assert "if that process has ended, remove run/.holder" in refusal()
        assert (FOLDER / ".holder").read_text() == text
    # The number of a process that has ended may be that of another one now: here, of this one.
    (FOLDER / ".holder").write_text(json.dumps(holder | {"began": "1"}))
    with hold(FOLDER):
        pass


def test_a_lock_that_is_removed_before_it_is_locked_is_taken_anew(monkeypatch):
    flock, taken = fcntl.flock, []

    def remove_first(file, flags):
        flock(file, flags)
        taken.append(file)
        if len(taken) < 3:
            (FOLDER / ".lock").unlink()

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with hold(FOLDER):
        assert len(taken) == 3
        assert os.path.samestat(os.fstat(taken[-1].fileno()), os.stat(FOLDER / ".lock"))
        assert "is being trained by" in refusal()


@pytest.mark.parametrize("name", [".lock", ".holder"])
@pytest.mark.parametrize("replaced", [False, True])
def test_whose_lock_is_lost_writes_nothing_more(name, replaced, refusing_flock):
    if name == ".holder":
        refusing_flock(errno.ENOSYS)
    with hold(FOLDER):
        with open_atomically(FOLDER / "file") as file:
            file.write(b"mine")
        (FOLDER / name).rename("elsewhere")
        if replaced:
            (FOLDER / name).write_text("another")
        with pytest.raises(LockLostError, match="another process may"), open_atomically(FOLDER / "file") as file:
            file.write(b"mine, too")
    assert (FOLDER / "file").read_bytes() == b"mine"
    assert sorted(path.name for path in FOLDER.iterdir() if path.name != ".lock") == sorted(
        ["file", *([name] if replaced and name != ".lock" else [])]
    )


def test_a_run_whose_lock_is_lost_stops_at_its_next_checkpoint_and_leaves_all_as_it_was(mtlrun, monkeypatch):
    def complete_elsewhere(self, *arguments):
        """Do what another process does that makes the lock anew."""
        step(self, *arguments)
        if self.progress.step == 5:
            (folder,) = run_folders()
            (folder / ".lock").unlink()
            (folder / ".lock").touch()
            (folder / "record.json").write_text("its result")
            contents.update((path, path.read_bytes()) for path in files(folder))

    def files(folder):
        return [folder / "record.json", *folder.glob("checkpoints/*")]

    step, contents = Trainer.train_step, {}
    monkeypatch.setattr(Trainer, "train_step", complete_elsewhere)
    code, _, err = mtlrun(*QUICK)
    assert code == 1
    assert err.count("\n") == 1
    assert ".lock was removed or replaced during training" in err
    (folder,) = run_folders()
    assert {path: path.read_bytes() for path in files(folder)} == contents
    assert len(contents) > 2


def test_a_child_of_the_process_does_not_hold_the_lock():
    (is_up, up), (is_over, over) = os.pipe(), os.pipe()
    with hold(FOLDER):
        child = os.fork()
        if not child:
            os.write(up, b"x")
            os.close(over)
            os.read(is_over, 1)
            os._exit(0)
        os.read(is_up, 1)
    with hold(FOLDER):
        pass
    for end in (over, is_over, up, is_up):
        os.close(end)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("name", [".lock", ".holder"])
def test_a_child_of_the_process_does_not_end_the_lock(name, refusing_flock):
    if name == ".holder":
        refusing_flock(errno.ENOSYS)
    with hold(FOLDER):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert "is being trained by" in refusal()
    if not child:
        os._exit(0)
