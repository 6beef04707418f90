"""A second pass over a step's batch: the same dropout masks, and no running statistics that count the batch twice."""

import copy
from functools import partial

import pytest
import torch
from helpers import QUICK
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.models import HardSharing, SourceStatistics
from mtlrun.models.backbones import MLP
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Regression
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import Forward, ModelSharing
from mtlrun.training.lookahead import look_ahead
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import FAMO, AutoLambda, Equal
from mtlrun.weightings.capabilities import ObservesLossesAfterStep

CPU = torch.device("cpu")
TASKS = {"a": Regression(), "b": Regression()}


class Noisy(nn.Module):
    """Dropout and BatchNorm, and a buffer that each pass changes and uses."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU())
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, features):
        if self.training:
            self.passes += 1
        return self.layers(features) * (1 + self.passes)


def make_model(per_source=False):
    torch.manual_seed(0)
    model = HardSharing(TASKS, partial(MLP, (4,), hidden=[6]))
    model.trunk.stages[0].append(Noisy())
    if per_source:
        model.source_statistics = SourceStatistics(model, ["x", "y"])
    return model


def make_batch(per_source=False, seed=0, without=()):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 4, generator=generator)
    targets = {task: torch.randn(12, generator=generator) for task in TASKS}
    for task in without:
        targets[task][:] = torch.nan
    if not per_source:
        return LabeledBatch.load(TASKS, (inputs, targets), CPU)
    halves = {"x": slice(0, 6), "y": slice(6, 12)}
    parts = {name: (inputs[half], {task: t[half] for task, t in targets.items()}) for name, half in halves.items()}
    return LabeledBatch.load(TASKS, parts, CPU)


@pytest.mark.parametrize("per_source", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_without_a_change_of_the_parameters_the_losses_are_the_same_and_buffers_count_the_batch_once(
    micro_batches, per_source
):
    model, batch = make_model(per_source), make_batch(per_source)
    twin = copy.deepcopy(model)

    def step(model, weighting):
        weighting.setup(2)
        torch.manual_seed(1)
        torch.rand(3)
        repeatable = bool(weighting.capable_of(ObservesLossesAfterStep))
        forward = Forward(model, batch, micro_batches, repeatable=repeatable)
        forward.backward(weighting, ModelSharing(model))
        return forward

    famo = FAMO(weight_decay=0.0)
    forward = step(model, famo)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.random.get_rng_state()
    again = forward.losses_again()
    assert torch.equal(again.double(), famo.before)
    famo.observe_losses_after_step(again)
    famo.learn()
    assert not famo.logits.any()
    assert torch.equal(torch.random.get_rng_state(), state)
    step(twin, Equal())  # which makes one pass
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
        assert torch.equal(buffer, twin.get_buffer(name)), name
    with torch.no_grad():
        next(model.heads["a"].parameters()).mul_(2)
    assert forward.losses_again()[0] != again[0]
    assert forward.losses_again()[1] == again[1]


def test_a_run_whose_network_stands_still_leaves_the_weights_of_famo_equal(tmp_path):
    for micro_batches in (1, 2):
        still = ["weighting=famo", "backbone.dropout=0.5", "optimizer.lr=1e-30"]
        parts = prepare(compose([*QUICK, *still, f"trainer.micro_batches={micro_batches}"]))
        trainer = Trainer(parts, folder=tmp_path)
        for loaded, _ in zip(parts.loaders["train"].batches(0), range(3), strict=False):
            trainer.train_step(loaded)
        assert not parts.weighting.logits.any()


def test_a_pass_is_repeated_only_if_that_was_asked_for():
    with pytest.raises(ValueError, match="set repeatable=True"):
        Forward(make_model(), make_batch()).losses_again()


def lambdas_after_lookahead(batch, meta, seed=3):
    weighting, model = AutoLambda(lr=0.1), make_model()
    weighting.setup(2)
    torch.manual_seed(seed)
    look_ahead(weighting, model, batch, meta, lr=0.1)
    return model, weighting


def test_the_passes_of_a_lookahead_see_the_masks_of_the_step_and_leave_no_trace():
    model, batch = make_model(), make_batch()
    losses = []

    class Watching(AutoLambda):
        def look_ahead(self, lookahead):
            losses.append(lookahead.losses().detach())
            super().look_ahead(lookahead)

    weighting = Watching()
    weighting.setup(2)
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    look_ahead(weighting, model, batch, make_batch(seed=1), lr=0.1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(losses[0], torch.stack(list(Forward(model, batch)._whole.losses.values())).detach())


def test_auto_lambda_learns_the_weights_of_the_tasks_that_have_a_label():
    both, only_a, nothing = make_batch(), make_batch(without=["b"]), make_batch(without=["a", "b"])
    meta = make_batch(seed=1)
    for batch, other, moves in (
        (both, meta, [True, True]),
        (only_a, meta, [True, False]),
        (both, make_batch(seed=1, without=["a"]), [True, True]),
        (only_a, make_batch(seed=1, without=["a"]), [True, False]),
    ):
        _, weighting = lambdas_after_lookahead(batch, other)
        weighting.learn()
        assert [value != 0.1 for value in weighting.task_weights.tolist()] == moves
    for batch, other in ((nothing, meta), (both, nothing)):
        assert lambdas_after_lookahead(batch, other)[1].task_weights.grad is None
