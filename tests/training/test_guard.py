"""The guard where its verdict stays on the device, as on a GPU: the run is the same, and a bad step ends it as well.

On the CPU verdicts are read at once (tests/runs/test_run.py); here a trainer on the CPU has to do without.
"""

import pytest
import torch

from mtlrun.config.compose import compose
from mtlrun.errors import DivergedError
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Regression
from mtlrun.training.trainer import Trainer

QUICK = ["dataset=kendall_toy", "backbone.hidden=[8]", "trainer.batch_size=20", "trainer.epochs=4"]
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
BAD = 7  # the step: the second of the second epoch, between two points of the curves


def make_trainer(folder, *overrides, reads_at_once=False):
    folder.mkdir()
    trainer = Trainer(prepare(compose([*QUICK, *overrides])), folder=folder)
    trainer.guard.reads_at_once = reads_at_once
    return trainer


def parameters(trainer):
    return [parameter.detach().clone() for parameter in trainer.parts.model.parameters()]


@pytest.mark.parametrize("overrides", [[], ["optimizer=sgd", "trainer.clip_norm=.1", "weighting=mgda"]])
def test_a_run_whose_verdicts_are_read_late_is_the_same_run(tmp_path, overrides):
    late, at_once = (
        make_trainer(tmp_path / str(number), *overrides, reads_at_once=bool(number)) for number in range(2)
    )
    late.fit()
    at_once.fit()
    # The norm by which gradients are clipped is taken in float64 there.
    torch.testing.assert_close(parameters(late), parameters(at_once))
    assert late.newest_metrics.keys() == at_once.newest_metrics.keys()


LOSS = Regression.loss
CASES = {
    "loss": (lambda *given: LOSS(*given) * torch.nan, "equal", "the loss of task first is not finite", "first"),
    "gradient": (
        lambda task, prediction, target: LOSS(task, prediction, target) + (prediction * 0).abs().sum().sqrt(),
        "equal",
        "the gradient of task first is not finite",
        "first",
    ),
    "task gradients": (
        lambda task, prediction, target: LOSS(task, prediction, target) + (prediction * 0).abs().sum().sqrt(),
        "mgda",
        "the gradient of task first is not finite",
        "first",
    ),
    "bound": (
        lambda *given: LOSS(*given) - 1e6,
        "gls",
        "the loss of task first is -9.*e[+]05, and the weighting",
        "first",
    ),
    "length": (lambda *given: LOSS(*given) * 1e22, "equal", "the gradient has a length of .*, too long", None),
}


@pytest.mark.parametrize(
    ("device", "reads_at_once"),
    [("cpu", True), ("cpu", False), pytest.param("cuda", False, marks=ON_GPU)],
)
@pytest.mark.parametrize("case", CASES)
def test_a_bad_step_is_not_applied_nor_any_after_it_and_the_run_names_task_and_step(
    monkeypatch, tmp_path, case, device, reads_at_once
):
    change, weighting, message, task = CASES[case]
    overrides = [f"weighting={weighting}", "trainer.log_every=100", "trainer.evaluate_every=4"]
    overrides.append(f"runtime.device={device}")
    before = make_trainer(tmp_path / "before", *overrides, f"trainer.steps={BAD - 1}", "trainer.epochs=null")
    before.fit()
    trainer = make_trainer(tmp_path / "spoiled", *overrides, reads_at_once=reads_at_once)
    first = trainer.parts.tasks["first"]
    bad = trainer.batch_of_step(BAD).source_batches[0].targets["first"]
    monkeypatch.setattr(
        Regression,
        "loss",
        lambda self, prediction, target: (change if self is first and torch.equal(target, bad) else LOSS)(
            self, prediction, target
        ),
    )
    with pytest.raises(DivergedError, match=f"step {BAD}: {message}") as caught:
        trainer.fit()
    assert (caught.value.step, caught.value.task) == (BAD, task)
    tolerance = 0 if device == "cpu" else 1e-6
    torch.testing.assert_close(parameters(trainer), parameters(before), rtol=tolerance, atol=tolerance)
    late = not reads_at_once and case != "task gradients"  # those are copied to the CPU, for the solver
    assert trainer.progress.step == (trainer.total_steps if late else BAD - 1)
    if late:
        with pytest.raises(DivergedError, match=f"step {BAD}: "):  # no checkpoint is written of what follows
            trainer.save()
