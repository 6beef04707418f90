"""Observers that fail: they are switched off, and the training goes on as without them."""

import errno
import json
import logging
import os
from pathlib import Path

import pytest
from helpers import QUICK, curves, read_record, run_folders, train_until_step
from rich.console import Console

from mtlrun.config.compose import compose
from mtlrun.errors import RunInterruptedError, StorageError
from mtlrun.records.notes import taking_notes
from mtlrun.runs import run as module
from mtlrun.runs.run import run
from mtlrun.training.observers import Observer, Observers, TensorBoard
from mtlrun.training.observers.base import AppendFile

HOOKS = {
    "started": (None, 0),
    "trained": (1, 1, {}),
    "averaged": (1, 1, {}),
    "validated": (1, 1, {}, True),
    "pictured": (1, {}),
    "tested": (1, {}),
    "state_dict": (),
    "load_state_dict": ([{}, {}],),
    "closed": (),
}


class Failing(Observer):
    """An observer that fails in one hook, and counts in how many it was called."""

    def __init__(self, hook, error):
        self.hook, self.error, self.calls = hook, error, []

    def __getattribute__(self, name):
        if name not in HOOKS:
            return super().__getattribute__(name)

        def call(*_):
            self.calls.append(name)
            if name == self.hook:
                raise self.error
            return {}

        return call


class Required(Failing):
    """One without which a run is not complete."""

    required = True


def call(observers, hook):
    arguments = HOOKS[hook]
    return getattr(observers, hook)(*arguments)


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError(errno.EPIPE, "gone"), StorageError("f", OSError()), SystemExit(1)]
)
@pytest.mark.parametrize("hook", HOOKS)
def test_whatever_an_observer_raises_in_whatever_hook_the_others_go_on(hook, error):
    failing, other = Failing(hook, error), Failing(None, None)
    observers = Observers([failing, other])
    with taking_notes() as notes:
        for each in HOOKS:
            call(observers, each)
    assert other.calls == list(HOOKS)
    done = list(HOOKS)[: list(HOOKS).index(hook) + 1]
    assert failing.calls == [*done, "closed"]
    (note,) = notes
    assert note.endswith("the run goes on without it")
    assert str(error) in note


@pytest.mark.parametrize("hook", HOOKS)
def test_what_stops_a_run_and_the_errors_of_a_required_observer_are_raised(hook):
    for failing in (
        Failing(hook, KeyboardInterrupt()),
        Failing(hook, RunInterruptedError(15)),
        Required(hook, ValueError("no")),
    ):
        with pytest.raises(type(failing.error)):
            call(Observers([failing, Failing(None, None)]), hook)


def test_each_observer_is_closed_whatever_happens_to_the_others():
    observers = [
        Required("closed", ValueError("first")),
        Failing("closed", OSError("no")),
        Required("closed", ValueError()),
    ]
    with pytest.raises(ValueError, match="first"):
        Observers(observers).closed()
    assert all(observer.calls[0] == "closed" for observer in observers)


def config_of(root):
    return compose([*QUICK, "trainer.log_every=2", f"runtime.root={root}"])


def points(folder):
    found = curves(folder)
    return {(tag, event.step, event.value) for tag in found.Tags()["scalars"] for event in found.Scalars(tag)}


def test_an_event_file_that_failed_goes_on_after_a_gap_when_the_run_is_continued(monkeypatch):
    run(config_of("whole"))
    config = config_of("parts")

    def fail(self, values, step):
        if step == 6:
            raise StorageError(self.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        plain(self, values, step)

    plain = TensorBoard._scalars
    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "_scalars", fail)
        train_until_step(config, 10, monkeypatch)
    (folder,), (whole,) = run_folders("parts"), run_folders("whole")
    (note,) = set(read_record(folder)["notes"]) - set(read_record(whole)["notes"])
    assert "tfevents" in note
    assert note.endswith("cannot be written: No space left on device; the run goes on without it")
    run(config)
    record, twin = read_record(folder), read_record(whole)
    assert record["test"] == twin["test"]
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert points(folder) == {point for point in points(whole) if not 4 < point[1] <= 10}
    (note,) = set(record["notes"]) - set(twin["notes"])
    assert note.endswith("has nothing from after step 4 to step 10, since it had failed")


def test_an_event_file_that_cannot_be_opened_is_done_without(monkeypatch, capsys):
    monkeypatch.setattr(TensorBoard, "load_state_dict", lambda *_: Path("/proc/nothing").write_bytes(b""))
    run(config_of("outputs"))
    (folder,) = run_folders()
    assert read_record(folder)["status"] == "completed"
    assert "tfevents" in read_record(folder)["notes"][-1]
    assert not list(folder.glob("events*"))
    assert capsys.readouterr().out.count("the run goes on without it") == 1


class Broken:
    """A file whose reader is gone."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def flush(self):
        self.write("")


@pytest.mark.parametrize("kind", [Console, module.make_console])
def test_a_console_that_fails_ends_no_run(kind, monkeypatch, capsys):
    config = config_of("outputs")
    config["runtime"]["quiet"] = False
    if kind is Console:  # by whose own way to end the program it fails
        run(config, console=Console(file=Broken()))
    else:
        monkeypatch.setattr("sys.stdout", Broken())
        run(config)
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["status"] == "completed"
    assert "Screen has failed" in "".join(record["notes"])
    assert ("the screen cannot be written: Broken pipe" in "".join(record["notes"])) == (kind is not Console)
    assert "Traceback" not in capsys.readouterr().err
    log = (folder / "run.log").read_text()
    assert log.count("INFO epoch ") == 3
    assert "Traceback" in log


def test_an_epoch_line_has_the_mean_losses_of_its_epoch(monkeypatch, caplog):
    """With log_every=1 the curves have each step's losses, whose means the lines must show, whatever log_every is."""
    steps = compose([*QUICK, "trainer.log_every=1", "runtime.root=every"])
    run(steps)
    (folder,) = run_folders("every")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = []
    for epoch in (1, 2, 3):
        means = []
        for task in ("left", "right"):
            losses = [
                line[f"train/{task}/loss"] for line in lines if line["split"] == "train" and line["epoch"] == epoch
            ]
            assert len(losses) == 4
            means.append(f"{task} {sum(losses) / 4:.3f}")
        expected.append(f"epoch {epoch}, step {4 * epoch}: loss {', '.join(means)}; val left accuracy")
    caplog.set_level(logging.INFO, "mtlrun")
    config = compose([*QUICK, "trainer.log_every=100", "runtime.root=seldom"])
    train_until_step(config, 6, monkeypatch)  # in the middle of an epoch
    run(config)
    (folder,) = run_folders("seldom")
    found = [line.split(" INFO ")[1] for line in (folder / "run.log").read_text().splitlines() if "INFO epoch" in line]
    assert [line.split(" 0.")[0] for line in expected] == [line.split(" 0.")[0] for line in found]
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


def test_the_file_is_named_whose_name_cannot_be_brought_to_the_disk(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = AppendFile(tmp_path / "events")
    monkeypatch.setattr("mtlrun.records.folder._sync_folder", refuse)
    with pytest.raises(StorageError, match=r"events cannot be written: Input/output error"):
        file.sync()
    assert file.has_failed
    file.close()
