"""A signal after the end of training: the state stays as it was saved, and only the result is found again."""

import os
import signal

import pytest
from helpers import read_record, run_folders
from test_resume import assert_same, config_of, outcome

from mtlrun.datasets import MultiDigits
from mtlrun.errors import RunInterruptedError
from mtlrun.runs import run as module
from mtlrun.training import checkpoint
from mtlrun.training.trainer import Trainer

# What is called at the end of a run, and what is sent then.
STANDARD = [(Trainer, "test", signal.SIGINT), (module, "keep_predictions", signal.SIGTERM),
            (module, "record_intervals", signal.SIGINT)]  # fmt: skip
LEGACY = [(module, "log_few_evaluations", signal.SIGTERM)]


def stopped(owner, name, number, root, monkeypatch):
    """Start a run that gets a signal when a function is called, and return its config."""
    call, config = getattr(owner, name), config_of(*OVERRIDES, f"runtime.root={root}")

    def stop(*arguments):
        os.kill(os.getpid(), number)
        return call(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(RunInterruptedError):
            module.run(config)
    return config


# The second of three evaluations is selected.
OVERRIDES = ["runtime.predictions=csv", "trainer.evaluate_every_steps=5", "optimizer.lr=0.05"]


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_a_signal_at_the_end_changes_nothing(protocol, monkeypatch):
    monkeypatch.setattr(MultiDigits, "protocol", protocol)
    module.run(config_of(*OVERRIDES, "runtime.root=whole"))
    (whole,) = run_folders("whole")
    expected, last = outcome(whole), checkpoint.load(whole / "checkpoints" / "last.pt")
    best = checkpoint.load(whole / "checkpoints" / "best.pt")
    assert best["evaluations"] == [2 if protocol == "standard" else 3]
    for owner, name, number in STANDARD if protocol == "standard" else LEGACY:
        config = stopped(owner, name, number, name, monkeypatch)
        (folder,) = run_folders(name)
        assert read_record(folder)["status"] == "interrupted"
        path = folder / "checkpoints" / "last.pt"
        saved = path.read_bytes()
        assert_same(last["model"], checkpoint.load(path)["model"])
        module.run(config)
        assert path.read_bytes() == saved
        assert_same(expected, outcome(folder))
