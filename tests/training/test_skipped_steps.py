"""Steps in float16: gradients are scaled inside the model alone, and a step whose gradients exceed it is skipped."""

from itertools import pairwise

import pytest
import torch
from helpers import QUICK, choose_weighting, curves, read_lines, read_record, run_folders, sample_of, train_until_step
from test_precision import APART, KINDS, MODELS, TINY, chosen, update
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.models.gradient_scale import GradientScale
from mtlrun.runs.run import run
from mtlrun.setup.prepare import prepare
from mtlrun.training.trainer import Trainer

SHORT = [
    *QUICK,
    "runtime.device=cpu",
    "trainer.epochs=2",
    "trainer.baselines=false",
    "trainer.log_every=1",
    "trainer.precision=fp16",
]
#: One of each way in which a step is found out to be one that is skipped.
METHODS = ["equal", "uncertainty", "famo", "pcgrad", "db_mtl", "modo"]


@pytest.mark.parametrize(
    ("model", "weighting"),
    sample_of(
        lambda *case: case in {("hard", "pcgrad"), ("dselect_k", "uncertainty"), ("adversarial", "db_mtl")},
        [(model, weighting) for model in MODELS for weighting in ([APART[model]] if model in APART else KINDS)],
    ),
)
def test_what_a_weighting_makes_of_scaled_gradients_is_not_scaled(model, weighting, monkeypatch):
    monkeypatch.setattr("mtlrun.models.gradient_scale._FIRST", 2.0**8)  # some models exceed float16 with the usual one
    parts, made, gradients = update(*chosen(model, weighting), "trainer.precision=fp16")
    assert parts.model.computation.scale is not None
    _, expected, exact = update(*chosen(model, weighting))
    torch.testing.assert_close(made.losses, expected.losses, rtol=2e-3, atol=2e-3)
    assert gradients.dtype == torch.float32
    assert torch.cosine_similarity(gradients, exact, dim=0) > (0.9 if model == "mti_net" else 0.99)
    assert gradients.norm() / exact.norm() == pytest.approx(1, rel=0.05)
    if made.gram is not None:
        torch.testing.assert_close(made.gram, expected.gram, rtol=0.05, atol=0.05 * float(expected.gram.max()))


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_maps_and_boxes_are_learned_in_half_precision(precision, monkeypatch):
    monkeypatch.setattr("mtlrun.models.gradient_scale._FIRST", 2.0**8)
    scenes = [
        "dataset=scenes", "backbone=resnet18", "backbone.width=0.25", "+task@tasks.objects=detection",
        "tasks.objects.num_classes=3", "trainer.batch_size=4", *TINY[-2:],
    ]  # fmt: skip
    _, made, gradients = update(f"trainer.precision={precision}", tiny=scenes)
    _, expected, exact = update(tiny=scenes)
    torch.testing.assert_close(made.losses, expected.losses, rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(gradients, exact, dim=0) > 0.95


KEYS = [
    "trainer.vmap_backward=true", "trainer.two_pass=true", "trainer.stream_rows=true",
    "trainer.checkpoint_activations=true", "trainer.channels_last=true", "weighting.grad_wrt=representation",
    "trainer.compile=true",
]  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "key"),
    sample_of(
        lambda *case: case in {("fp16", KEYS[2]), ("bf16", KEYS[3]), ("fp16", KEYS[5])},
        [(precision, key) for precision in ("bf16", "fp16") for key in KEYS],
    ),
)
def test_keys_of_memory_and_speed_go_with_half_precision(precision, key, monkeypatch):
    monkeypatch.setattr("mtlrun.models.compiled.BACKEND", "aot_eager")
    images = ["backbone=convnet", "backbone.channels=[8,16]", "dataset.pairs_per_image=1", "dataset.size=10"]
    _, _, gradients = update("weighting=upgrad", key, f"trainer.precision={precision}", tiny=images)
    _, _, exact = update("weighting=upgrad", *[key] * key.startswith("weighting"), tiny=images)
    assert torch.cosine_similarity(gradients, exact, dim=0) > 0.99
    assert gradients.norm() / exact.norm() == pytest.approx(1, rel=0.02)


class Spy(nn.Module):
    """Puts infinity into the gradients of the trunk at some of its passes, as one that exceeds float16 would."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.passes = steps, 0

    def __call__(self, module, inputs, output):
        if torch.is_grad_enabled() and output.requires_grad:
            self.passes += 1
            if self.passes in self.steps:
                output.register_hook(lambda gradient: gradient * torch.inf)


def train(monkeypatch, *words, steps=(), reads_at_once=None):
    """Train with infinite gradients in some steps; return the record, the trainer and the states before each step."""
    states, made = [], []
    whole_step, init = Trainer.train_step, Trainer.__init__

    def begin(self, parts, **options):
        init(self, parts, **options)
        parts.model.trunk.stages[0].register_forward_hook(Spy(steps))
        if reads_at_once is not None:
            self.guard.reads_at_once = reads_at_once
        made.append(self)

    def step(self, *batches):
        states.append([value.clone() for value in [*self.parts.model.parameters(), *self.parts.weighting.parameters()]])
        whole_step(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", begin)
        patch.setattr(Trainer, "train_step", step)
        record = run(compose([*SHORT, *words]))
    return record, made[0], states


@pytest.mark.parametrize(
    "weighting", sample_of(lambda name: name not in ("famo", "modo"), [(name,) for name in METHODS])
)
def test_a_step_that_exceeds_float16_is_skipped_and_the_run_goes_on(weighting, monkeypatch):
    record, trainer, states = train(monkeypatch, *choose_weighting(weighting, "left"), steps=(3, 4))
    moved = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(states)]
    assert moved == [step not in (3, 4) for step in range(1, 8)]
    assert (record.status, record.steps, record.skipped_steps) == ("completed", 8, 2)
    (folder,) = run_folders()
    assert read_record(folder)["skipped_steps"] == 2
    assert [line["train/skipped_steps"] for line in read_lines(folder, "train")] == [0, 0, 1, 2, 2, 2, 2, 2]
    assert "train/skipped_steps" in curves(folder).Tags()["scalars"]
    assert trainer.skips.scale.state_dict() == {"factor": 2.0**14, "counts": [4, 2, 0]}
    rates = [line["lr/shared"] for line in read_lines(folder, "train")]
    assert len(rates) == 8
    assert all(torch.isfinite(value).all() for value in trainer.parts.model.state_dict().values())


def test_where_nothing_is_waited_for_the_optimizer_skips_the_step(monkeypatch):
    expected, written, _ = train(monkeypatch, "weighting=equal", "runtime.study=read", steps=(3, 4))
    record, trainer, _ = train(monkeypatch, "weighting=equal", steps=(3, 4), reads_at_once=False)
    assert record.skipped_steps == 2
    for name, value in written.parts.model.state_dict().items():
        torch.testing.assert_close(trainer.parts.model.state_dict()[name], value, rtol=0, atol=0)
    assert record.test == expected.test


def test_a_run_that_skips_for_ever_is_stopped_and_named(mtlrun, monkeypatch):
    monkeypatch.setattr("mtlrun.training.skipped_steps._MOST_IN_A_ROW", 3)
    for weighting in ("equal", "pcgrad"):
        with pytest.raises(Exception, match="step 4: 3 steps in a row were skipped, since gradients in the model"):
            train(monkeypatch, f"weighting={weighting}", steps=range(2, 99))


def test_a_loss_that_is_not_finite_is_no_step_to_skip(monkeypatch):
    for weighting in ("equal", "pcgrad", "db_mtl"):
        with monkeypatch.context() as patch:
            patch.setattr("mtlrun.tasks.Classification.loss", lambda *_: _[1].sum() * torch.nan)
            with pytest.raises(Exception, match=r"step 1: .*task left is not finite"):
                run(compose([*SHORT, f"weighting={weighting}"]))


def test_a_continued_run_has_the_scale_that_it_had(monkeypatch):
    init = GradientScale.__init__

    def large(self, device):
        init(self, device)
        self.load_state_dict({"factor": 2.0**40, "counts": [0, 0, 0]})  # which float16 does not hold

    monkeypatch.setattr(GradientScale, "__init__", large)
    words = [*SHORT, "weighting=uncertainty"]
    whole = run(compose([*words, "runtime.study=whole"]))
    assert 0 < whole.skipped_steps == 8
    train_until_step(compose(words), 5, monkeypatch)
    record = run(compose(words))
    assert record.resumed == 1
    assert record.skipped_steps == whole.skipped_steps
    assert record.test == whole.test


def test_the_scale_grows_and_shrinks():
    scale = GradientScale(torch.device("cpu"))
    for _ in range(2000):
        scale.update(False)
    assert scale.state_dict() == {"factor": 2.0**17, "counts": [0, 0, 0]}
    for skipped in (torch.tensor(True), True, False):
        scale.update(skipped)
    assert scale.state_dict() == {"factor": 2.0**15, "counts": [1, 2, 0]}
    scale.load_state_dict({"factor": 2.0**24, "counts": [1999, 2, 0]})
    scale.update(False)
    assert scale.state_dict()["factor"] == 2.0**24


def test_other_precisions_skip_nothing():
    parts = prepare(compose([*QUICK, "trainer.precision=bf16"]))
    assert parts.model.computation.scale is None
