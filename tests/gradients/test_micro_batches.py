"""Micro-batches: their update is that of the whole batch, for every method that can be computed from them."""

import copy
from functools import partial

import pytest
import torch
from helpers import QUICK, read_record, run_folders, weighting_node

from mtlrun.cli.list import entries
from mtlrun.config.instantiate import build
from mtlrun.gradients import GradientStep, Sharing
from mtlrun.models import HardSharing, SoftSharing
from mtlrun.models.backbones import MLP
from mtlrun.tasks import Classification, Regression
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, Forward, ModelSharing, positions
from mtlrun.weightings import DWA, MGDA, Equal, Uncertainty
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import ObservesLossesAfterStep, ObservesPerformance


def node_of(name):
    node = weighting_node(name)
    return {key: [1.0, 2.0, 0.5] if value == "${per_task:weight}" else value for key, value in node.items()}


def configured(name, **changes):
    """Build `weighting=<name>`, ready for three tasks."""
    weighting = build(node_of(name) | changes, "weighting")
    weighting.setup(3, seed=1)
    return weighting


def can_be_in_micro_batches(facts):
    """Return True if what `mtlrun list` shows of a weighting asks for nothing that only a whole batch has."""
    whole = "parts of the batch" in facts["passes"] or facts.get("needs") == "lookahead"
    return not whole and "representation" not in facts["models"]


NAMES = [entry.name for entry in entries("weighting") if can_be_in_micro_batches(entry.facts)]
TASKS = {"kind": Classification(3), "other": Classification(2), "third": Classification(4)}


def make_batch(tasks=TASKS, size=11, *, missing=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 5, generator=generator, dtype=torch.float64)
    targets = {}
    for name, task in tasks.items():
        if isinstance(task, Classification):
            targets[name] = torch.randint(task.output_size, (size,), generator=generator)
        else:
            targets[name] = torch.randn(size, 1, generator=generator, dtype=torch.float64)
    if missing:
        targets["other"][[0, 1, 2, 3, 7]] = -1  # none in the whole first piece
        targets["third"][5] = -1
    return LabeledBatch.load(tasks, (inputs, targets), torch.device("cpu"))


def make_model(tasks=TASKS, kind=HardSharing, **options):
    torch.manual_seed(0)
    return kind(tasks, partial(MLP, (5,), hidden=[6, 4]), **options).double()


def steps(weighting, model, count, in_micro_batches, *, want_gram=False, num_steps=3):
    """Make steps of plain gradient descent; return the weights and matrices that the method reported."""
    sharing = ModelSharing(model)
    for method in weighting.methods():
        method.optimizer, method.lr = "sgd", 0.05
    updates = []
    for number in range(num_steps):
        batch = make_batch(model.tasks, seed=number, missing=model.missing)
        model.zero_grad()
        weighting.zero_grad()
        forward = Forward(model, batch, count if in_micro_batches else 1, repeatable=True)
        weighting.active = positions(forward.active, batch)
        for method in weighting.capable_of(ObservesPerformance):
            method.observe_performance(forward.performances())
        update = forward.backward(weighting, sharing, want_gram=want_gram)
        updates.append((update.weights, update.gram, update.losses))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
        for method in weighting.capable_of(ObservesLossesAfterStep):
            method.observe_losses_after_step(forward.losses_again())
        weighting.learn()
    return updates


def check_same(make_weighting, model, count, **options):
    model.missing = options.pop("missing", True)
    model.tasks = options.pop("tasks", TASKS)
    twin = copy.deepcopy(model)
    ours, theirs = make_weighting(), make_weighting()
    expected = steps(theirs, twin, count, in_micro_batches=False, **options)
    found = steps(ours, model, count, in_micro_batches=True, **options)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), rtol=1e-7, atol=1e-10)
    for (weights, gram, values), (weights2, gram2, values2) in zip(found, expected, strict=True):
        torch.testing.assert_close(values, values2)
        if weights2 is not None:
            torch.testing.assert_close(weights, weights2, check_dtype=False, rtol=1e-6, atol=1e-9)
        if gram2 is not None:
            torch.testing.assert_close(gram, gram2, rtol=1e-6, atol=1e-12)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_update_is_that_of_the_whole_batch(name):
    check_same(partial(configured, name), make_model(), 3)


@pytest.mark.parametrize("name", ["uncertainty", "pcgrad", "graddrop"])
@pytest.mark.parametrize("count", [1, 2, 11, 20])
def test_any_number_of_micro_batches_works(name, count):
    check_same(partial(configured, name), make_model(), count)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mgda", {"update_weights_every": 2}),
        ("mgda", {"update_weights_every": 2, "head_loss": "weighted"}),
        ("mgda", {"loss_transform": "log"}),
        ("balancer", {"grad_wrt": "shared"}),
        ("uncertainty", {"form": "log1p"}),
        ("gcs", {"primary": 2, "by_cosine": True}),
    ],
)
def test_options_of_a_method_work_in_micro_batches(name, changes):
    check_same(partial(configured, name, **changes), make_model(), 3, missing=False)


def test_an_inner_weighting_learns_as_it_would_from_the_whole_batch():
    def make():
        weighting = MGDA(losses=Uncertainty(), update_weights_every=2, loss_transform="log")
        weighting.setup(3)
        return weighting

    check_same(make, make_model(), 4, missing=False)


def test_regularizers_count_once():
    tasks = {"a": Regression(), "b": Regression()}
    model = make_model(tasks, SoftSharing, strength=0.5)
    with torch.no_grad():
        next(model.backbones["a"].parameters()).add_(0.3)

    def make():
        weighting = Equal()
        weighting.setup(2)
        return weighting

    check_same(make, model, 3, missing=False, tasks=tasks)


def test_gradients_for_the_log_are_those_of_the_whole_batch():
    model = make_model()
    check_same(partial(configured, "dwa"), model, 3, want_gram=True)
    model.missing = True
    assert steps(configured("dwa"), model, 3, in_micro_batches=True, want_gram=True)[0][1].shape == (3, 3)


def test_random_numbers_are_those_of_the_pass_with_gradients_and_buffers_move_once():
    torch.manual_seed(0)
    model = HardSharing(TASKS, partial(MLP, (5,), hidden=[50, 40], dropout=0.5)).double()
    model.trunk.stages[0].append(torch.nn.BatchNorm1d(50).double())
    batch, weighting = make_batch(), configured("uncertainty")
    forward = Forward(model, batch, 3)
    seen = []
    weighting.objective = lambda losses: seen.append(losses.detach()) or Uncertainty.objective(weighting, losses)
    update = forward.backward(weighting, ModelSharing(model))
    torch.testing.assert_close(update.losses, seen[0])
    assert model.trunk.stages[0][-1].num_batches_tracked == 3


def test_equal_weights_need_no_second_forward_pass(monkeypatch):
    counts = []
    for name in ("equal", "pcgrad", "dwa"):
        model = make_model()
        calls = []

        def forward(inputs, tasks=None, calls=calls, model=model):
            calls.append(1)
            return type(model).forward(model, inputs, tasks)

        monkeypatch.setattr(model, "forward", forward)
        Forward(model, make_batch(), 3).backward(configured(name), ModelSharing(model))
        counts.append(len(calls))
    assert counts == [3, 3, 6]


@pytest.mark.parametrize("name", ["equal", "famo", "dtp", "pcgrad", "graddrop"])
def test_a_run_in_micro_batches_trains_and_records_its_passes(name, quick):
    record = read_record(quick("trainer.micro_batches=3", f"weighting={name}"))
    assert record["status"] == "completed"
    plain = {"equal": 1, "famo": 2, "dtp": 1, "pcgrad": 1, "graddrop": 1}[name]
    assert record["passes_per_step"]["forward"] == plain + (name in ("famo", "dtp"))


def test_a_run_in_micro_batches_ends_like_one_at_once(quick):
    results = []
    for pieces in (1, 4):
        record = read_record(
            quick(f"trainer.micro_batches={pieces}", "backbone.dropout=0", "weighting=pcgrad", "seed=3")
        )
        results.append(record["val"]["left"]["loss"])
    assert results[1] == pytest.approx(results[0], rel=1e-4)


@pytest.mark.parametrize("model", ["hard", "cross_stitch"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_passes_in_one_call_train_alike(model, pieces, quick):
    results = []
    for batched in ("false", "true"):
        arguments = [f"trainer.vmap_backward={batched}", f"trainer.micro_batches={pieces}", f"model={model}"]
        results.append(read_record(quick(*arguments, "weighting=pcgrad"))["val"]["left"]["loss"])
    assert results[1] == pytest.approx(results[0], rel=1e-4)


@pytest.mark.parametrize(
    ("weighting", "reason"),
    [
        (["weighting=modo"], "weighting=modo needs the whole batch of a step at once; use trainer.micro_batches=1"),
        (["weighting=auto_lambda"], "weighting=auto_lambda needs the whole batch"),
        (["weighting=mgda_ub"], "weighting.grad_wrt=representation needs the whole batch"),
        (["weighting=mgda", "weighting.grad_wrt=last_layer"], "weighting.grad_wrt=last_layer needs the whole"),
    ],
)
def test_methods_that_need_the_whole_batch_are_refused(weighting, reason, mtlrun):
    code, _, err = mtlrun(*QUICK, *weighting, "trainer.micro_batches=2")
    assert code == 2
    assert reason in err
    assert not run_folders()


def test_micro_batches_of_one_sample_are_refused_under_batch_norm(mtlrun):
    code, _, err = mtlrun(
        "trainer=smoke",
        "dataset.size=8",
        "backbone=resnet18",
        "trainer.batch_size=8",
        "trainer.micro_batches=8",
    )
    assert code == 2
    assert "the smallest micro-batch has 1 sample" in err


def test_a_step_refuses_what_it_cannot_compute_from_micro_batches():
    model = make_model()
    sharing = ModelSharing(model)

    def losses(count):
        return list(BatchPass(model, make_batch()).losses.values())[:count]

    for name, reason in [
        ("dwa", "DWA needs the losses of the whole batch before its gradients"),
        ("mgda_ub", "grad_wrt=representation is not supported with micro-batches; use grad_wrt=shared"),
        ("modo", "MoDo needs the whole batch at once"),
    ]:
        with pytest.raises(ValueError, match=reason):
            GradientStep(configured(name), sharing.of(list(TASKS)), micro_batches=True)
    step = GradientStep(configured("dwa"), sharing.of(list(TASKS)))
    with pytest.raises(ValueError, match="3 tasks need as many losses, found 2"):
        step.add(losses(2))
    with pytest.raises(ValueError, match="a whole batch is added once, with all its tasks"):
        step.add(losses(2), [0, 1])
    with pytest.raises(ValueError, match="parts are for a PartsWeighting, found DWA"):
        step.add(losses(3), parts=[losses(3)])
    with pytest.raises(ValueError, match="there are no losses"):
        step.finish()
    step.add(losses(3))
    with pytest.raises(ValueError, match="a whole batch is added once, with all its tasks"):
        step.add(losses(3))
    with pytest.raises(ValueError, match="MGDA needs shared parameters, found none"):
        GradientStep(configured("mgda"), Sharing([], list(sharing.task_params.values())))
    assert isinstance(configured("mgda"), TaskGradientWeighting)
    assert isinstance(configured("dwa"), DWA)
