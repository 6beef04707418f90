"""Whole runs on the pretended device: with evaluations, observers and files, continued there and elsewhere."""

import logging

import pytest
import torch
from forbidden import FORBIDDEN
from helpers import read_record, run_folders
from small_trainings import DIGITS, SCENES, Preparation, runs_on_device

CPU = torch.device("cpu")


def test_a_run_gives_what_it_gives_on_the_cpu(mtlrun):
    """Evaluation, pictures, curves, checkpoints, the selected model, predictions and intervals."""
    words = [*SCENES, "dataset.cache=device", "trainer.log_every=1", "trainer.epochs=1"]
    words += ["runtime.quiet=true", "trainer.baselines=false"]
    with runs_on_device() as accelerator:
        code, _, err = mtlrun(*words, "runtime.root=device")
    assert code == 0, err
    assert not FORBIDDEN & accelerator.operations.keys()
    code, _, err = mtlrun(*words, "runtime.root=cpu", "runtime.device=cpu")
    assert code == 0, err
    here, there = (read_record(*run_folders(root)) for root in ("device", "cpu"))
    for task, metrics in there["test"].items():
        assert here["test"][task] == pytest.approx(metrics, rel=1e-3, abs=1e-5, nan_ok=True)
    assert (here["environment"]["device"], there["environment"]["device"]) == ("meta", "cpu")


@pytest.fixture(scope="module")
def digits():
    return Preparation([*DIGITS, "backbone.dropout=0.5", "weighting=equal"])


def advance(trainer, preparation, steps):
    """Make steps, and return the weights of the model as they are then."""
    trainer.parts.model.train()
    for _ in range(steps):
        trainer.train_step(preparation.batch(trainer.progress.step % 3))
        trainer.progress.step += 1
    state = trainer.parts.model.state_dict()
    return {name: getattr(tensor, "held", tensor).clone() for name, tensor in state.items()}


@pytest.mark.parametrize("weighting", ["graddrop", "moco", "uncertainty", "rlw"])
def test_a_run_is_continued_bit_by_bit_on_a_device_of_the_kind_and_also_on_another_kind(
    weighting, digits, tmp_path, caplog
):
    with runs_on_device():
        torch.manual_seed(1)
        whole = digits.trainer(tmp_path / "whole", weighting)
        expected = advance(whole, digits, 4)
        torch.manual_seed(1)
        begun = digits.trainer(tmp_path, weighting)
        advance(begun, digits, 2)
        begun.save()
        continued = digits.trainer(tmp_path, weighting)
        assert continued.resume()
        found = advance(continued, digits, 2)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    caplog.clear()
    elsewhere = []
    for _ in range(2):
        moved = digits.trainer(tmp_path, weighting, device=CPU)
        assert moved.resume()
        elsewhere.append(advance(moved, digits, 2))
    assert all(torch.equal(first, second) for first, second in zip(*(each.values() for each in elsewhere), strict=True))
    same = all(torch.allclose(elsewhere[0][name], tensor, rtol=1e-4, atol=1e-6) for name, tensor in expected.items())
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    if weighting == "graddrop":  # it draws a number for each entry, on the device
        assert warned[0] == "what the weighting drew on meta so far, it draws anew on cpu from here on"
        assert not same
    else:
        assert not warned
        assert same
