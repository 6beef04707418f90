"""What a weighting learns in a run: apart from the model's optimizer, schedule and clipping, resumed bit by bit."""

import json

import pytest
import torch
from helpers import QUICK, read_lines, read_record, run_folders

from mtlrun.config.compose import compose
from mtlrun.errors import RunInterruptedError
from mtlrun.runs.run import run
from mtlrun.setup.prepare import prepare
from mtlrun.training import checkpoint
from mtlrun.training.trainer import Trainer

# The network stands still, so that the losses and gradients are the same under every optimizer.
STILL = ["optimizer.lr=1e-30", "model=hard", "trainer.log_every=1"]
#: With one representation, micro-batches are not possible: rotograd, and those that look ahead, need the whole batch.
WHOLE = {"auto_lambda", "rotograd"}
LEARNING = ["weighting=famo", "weighting=gradnorm", "weighting=imtl_l", "weighting=uncertainty", "weighting=rotograd"]
INNER = ["weighting=pcgrad", "weighting/losses=uncertainty", "weighting.losses.lr=0.025"]


def final_state(folder, part):
    return checkpoint.load(folder / "checkpoints" / "last.pt")[part]


def learned(folder):
    """Return what was learned, with the state of its optimizer, as text that shows every bit."""
    state = final_state(folder, "weighting")
    rotations = final_state(folder, "model").get("rotations")
    return json.dumps([state, rotations], default=lambda tensor: tensor.tolist())


@pytest.mark.parametrize("overrides", [[*[name], "weighting.lr=0.025"] for name in LEARNING] + [INNER])
def test_what_is_learned_depends_on_no_optimizer_schedule_or_clipping_of_the_run(overrides, quick):
    common = [*STILL, *overrides, "trainer.epochs=2"]
    expected = learned(quick(*common))
    for changes in (
        ["optimizer=sgd", "optimizer.lr=1e-30"],
        ["optimizer=adamw", "optimizer.lr=1e-30", "optimizer.weight_decay=0.5"],
        ["scheduler=cosine", "scheduler.warmup_epochs=1"],
        ["trainer.clip_norm=1e-3"],
    ):
        assert learned(quick(*common, *changes)) == expected, changes


def test_the_rate_is_constant_and_shown_and_null_is_that_of_the_optimizer(quick):
    common = ["weighting=uncertainty", "optimizer=sgd", "optimizer.lr=0.125", "scheduler=exponential"]
    for lr, expected in (("null", 0.125), ("0.5", 0.5)):
        folder = quick(*common, f"weighting.lr={lr}")
        assert {line["lr/weighting"] for line in read_lines(folder, "train")} == {expected}
        assert read_record(folder)["learning_rates"]["weighting"] == expected
        assert read_record(folder)["parameters"]["weighting"] == 2


def test_a_word_chooses_the_optimizer(quick, mtlrun):
    # At the start, the derivative of uncertainty is 1/2 - L/2, the length of the first step of sgd.
    options = ["weighting.form=regression", "weighting.optimizer=sgd", "weighting.lr=0.1"]
    folder = quick("weighting=uncertainty", *options, "trainer=smoke", *STILL)
    lines = read_lines(folder, "train")
    weight = lines[1]["weight/left"]
    assert weight == pytest.approx(0.5 * torch.tensor(0.1 * (0.5 - lines[0]["train/left/loss"] / 2)).exp().item())
    code, _, err = mtlrun(*QUICK, "weighting=uncertainty", "weighting.optimizer=adamw")
    assert code == 2
    assert "weighting.optimizer must be one of 'adam', 'sgd', found 'adamw'" in err


@pytest.mark.parametrize("weighting", ["gradnorm", "famo", "auto_lambda", "rotograd"])
def test_a_run_stopped_in_an_epoch_goes_on_with_the_same_moments(weighting, monkeypatch):
    from mtlrun.runs import run as module

    micro_batches = 1 if weighting in WHOLE else 3
    overrides = [*QUICK, f"weighting={weighting}", f"trainer.micro_batches={micro_batches}", "backbone.dropout=0.3"]
    run(compose([*overrides, "runtime.root=whole"]))
    make = module.Trainer

    def make_stopping(*arguments, **options):
        trainer = make(*arguments, **options)
        trainer.stop_signal = lambda: 15 if trainer.progress.step >= 6 else None
        return trainer

    config = compose([*overrides, "runtime.root=parts"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "Trainer", make_stopping)
        with pytest.raises(RunInterruptedError):
            run(config)
    run(config)
    (whole,), (parts,) = run_folders("whole"), run_folders("parts")
    assert read_record(parts)["resumed"] == 1
    assert learned(whole) == learned(parts)
    assert "exp_avg" in learned(whole)


def test_a_step_that_is_refused_teaches_nothing(tmp_path):
    parts = prepare(compose([*QUICK, "weighting=uncertainty", "weighting.lr=0.5"]))
    trainer = Trainer(parts, folder=tmp_path)
    batch = next(iter(parts.loaders["train"].batches(0)))
    trainer.train_step(batch)
    before = parts.weighting.log_variance.detach().clone()
    with torch.no_grad():
        next(parts.model.parameters()).fill_(float("nan"))
    with pytest.raises(Exception, match="not finite"):
        trainer.train_step(batch)
    assert torch.equal(parts.weighting.log_variance, before)
