"""Standard output and error that are closed, full, or know no other characters than ASCII."""

import errno
import os
import pty
import subprocess
import sys

import pytest
from helpers import QUICK, read_record, run_folders

from mtlrun.cli import streams
from mtlrun.cli.main import dispatch

LOUD = QUICK[:-1]


@pytest.fixture
def lost(monkeypatch):
    """Return a function that puts a standard output that cannot be written in place of the one of the tests."""
    opened = []

    def put(kind):
        if kind == "a closed pipe":
            reading, writing = os.pipe()
            os.close(reading)
        elif kind == "a terminal that is gone":
            reading, writing = pty.openpty()
            os.close(reading)
        else:
            writing = os.open("/dev/full", os.O_WRONLY)
        opened.append(writing)
        monkeypatch.setattr(sys, "stdout", streams.Stream(None, writing, "standard output"))

    yield put
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("a closed pipe", "Broken pipe"),
        ("a terminal that is gone", "Input/output error"),
        ("a full disk", "No space left on device"),
    ],
)
def test_a_lost_screen_ends_no_run(kind, reason, lost, capsys):
    assert dispatch([*LOUD, "trainer.epochs=2", "runtime.root=twin"]) == 0
    capsys.readouterr()
    lost(kind)
    assert streams.finish(dispatch([*LOUD, "trainer.epochs=2", "-m", "seed=0,1", "hydra/launcher=basic"])) == 0
    line = f"standard output cannot be written: {reason}; going on without it"
    assert set(capsys.readouterr().err.splitlines()) == {f"mtlrun: {line}"}  # for the sweep, and for each run
    (twin,), folders = run_folders("twin"), sorted(run_folders())
    for folder in folders:
        assert read_record(folder)["notes"] == [*read_record(twin)["notes"], line]
        log = (folder / "run.log").read_text()
        assert line in log
        assert log.count("INFO epoch ") == 2
    assert read_record(folders[0])["test"] == read_record(twin)["test"]
    assert (folders[0] / "metrics.jsonl").read_bytes() == (twin / "metrics.jsonl").read_bytes()


def test_a_lost_screen_ends_no_sweep(lost, capsys):
    lost("a full disk")
    assert streams.finish(dispatch([*LOUD, "trainer.epochs=1", "-m", "seed=0,1"])) == 0
    line = "mtlrun: standard output cannot be written: No space left on device; going on without it"
    assert capsys.readouterr().err.splitlines() == [line]
    assert [read_record(folder)["status"] for folder in run_folders()] == ["completed", "completed"]


def test_a_command_fails_if_its_output_is_lost_and_not_if_its_reader_has_seen_enough(lost, capsys):
    for kind, code, said in [
        ("a closed pipe", 0, ""),
        ("a full disk", 1, "mtlrun: standard output cannot be written: No space left on device\n"),
    ]:
        lost(kind)
        assert streams.finish(dispatch(["list", "models"])) == code
        assert capsys.readouterr().err == said


def test_a_pipe_that_was_made_non_blocking_gets_everything():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(["wc", "-c"], stdin=reading, stdout=subprocess.PIPE) as reader:
        os.close(reading)
        stream = streams.Stream(None, writing, "standard output")
        stream.write("x" * 1_000_000)
        stream.flush()
        os.close(writing)
        assert int(reader.stdout.read()) == 1_000_000
    assert stream.error is None


@pytest.mark.slow
def test_descriptors_that_are_closed_are_not_those_of_files():
    command = f"{sys.executable} -m mtlrun {' '.join(LOUD)}".replace("[", "'[").replace("]", "]'")
    assert subprocess.run(f"{command} <&- >&- 2>&-", shell=True).returncode == 0
    (folder,) = run_folders()
    assert read_record(folder)["status"] == "completed"
    done = subprocess.run(
        ["bash", "-c", f"{command} runtime.quiet=true | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    line = "mtlrun: standard output cannot be written: Broken pipe; going on without it\n"
    assert (done.returncode, done.stderr) == (0, line)  # and Python has nothing to add when it ends


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_and_letters_are_written_in_what_the_encoding_has(encoding):
    reading, writing = os.pipe()
    original = os.fdopen(os.dup(writing), "w", encoding=encoding)
    stream = streams.Stream(original, writing, "standard output")
    print("größe ↑ 0.5 ± 0.1 † naïve 中 \udce9", file=stream, flush=True)
    found = os.read(reading, 1000).decode(encoding)
    assert (
        found
        == {
            "ascii": "gr\\xf6\\xdfe ^ 0.5 +/- 0.1 * na\\xefve \\u4e2d \\udce9\n",
            "latin-1": "größe ^ 0.5 +/- 0.1 * naïve \\u4e2d \\udce9\n",
            "utf-8": "größe ↑ 0.5 ± 0.1 † naïve 中 \\udce9\n",
        }[encoding]
    )
    original.close()
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_the_c_locale_is_ascii_unless_an_encoding_is_asked_for(monkeypatch):
    for name in ("LC_ALL", "PYTHONIOENCODING", "PYTHONUTF8"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    assert streams.Stream(None, 1, "standard output").encoding == "ascii"
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    assert streams.Stream(None, 1, "standard output").encoding == "utf-8"


def test_an_error_is_remembered_and_what_follows_is_dropped():
    with open("/dev/full", "w") as full:
        stream = streams.Stream(None, full.fileno(), "standard output")
        for _ in range(3):
            stream.write("x" * 10_000)
        stream.flush()
        assert stream.error.errno == errno.ENOSPC
