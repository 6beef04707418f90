"""`trainer.two_pass`: weights from task gradients that are dropped, then one pass of the weighted losses."""

import copy
import weakref
from functools import partial

import pytest
import torch
from helpers import QUICK, read_record, run_folders
from test_micro_batches import NAMES, TASKS, configured, make_batch, make_model

from mtlrun.gradients.task_gradients import TaskGradients
from mtlrun.models import CrossStitch, HardSharing
from mtlrun.models.backbones import MLP
from mtlrun.training.forward import Forward, ModelSharing, positions
from mtlrun.weightings import GradientWeighting

NAMES = [name for name in [*NAMES, "mgda_ub"] if isinstance(configured(name), GradientWeighting)]
SOURCES = ("shared", "representation", "last_layer")
OPTIONS = {
    "as it is": {},
    "weighted heads": {"head_loss": "weighted"},
    "of logarithms": {"loss_transform": "log"},
    "with an inner weighting": {"losses": {"_target_": "mtlrun.weightings.Uncertainty"}},
    "every other step": {"update_weights_every": 2, "head_loss": "weighted"},
}


def train(weighting, model, micro_batches=1, *, two_pass, missing=True, num_steps=3):
    """Make steps of plain gradient descent; return what the updates reported."""
    sharing, reported = ModelSharing(model), []
    for number in range(num_steps):
        torch.manual_seed(number)
        batch = make_batch(seed=number, missing=missing)
        model.zero_grad()
        weighting.zero_grad()
        forward = Forward(model, batch, micro_batches)
        weighting.active = positions(forward.active, batch)
        update = forward.backward(weighting, sharing, two_pass=two_pass)
        reported.append([update.losses, update.weights, update.gram])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
        weighting.learn()
    return reported


def assert_equal(found, expected, model, twin):
    for update, other in zip(found, expected, strict=True):
        for value, theirs in zip(update, other, strict=True):
            assert (value is None) == (theirs is None)
            if value is not None:
                torch.testing.assert_close(value, theirs, check_dtype=False, rtol=1e-6, atol=1e-9)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), rtol=1e-7, atol=1e-9)


def check(name, micro_batches, make=make_model, **options):
    model = make()
    twin = copy.deepcopy(model)
    missing = "update_weights_every" not in options
    expected = train(configured(name, **copy.deepcopy(options)), twin, two_pass=False, missing=missing)
    found = train(configured(name, **copy.deepcopy(options)), model, micro_batches, two_pass=True, missing=missing)
    assert_equal(found, expected, model, twin)


@pytest.mark.parametrize("name", NAMES)
def test_the_update_of_a_whole_batch_and_of_micro_batches_is_that_of_kept_task_gradients(name):
    source = SOURCES[NAMES.index(name) % 3]
    options = list(OPTIONS.values())[NAMES.index(name) % len(OPTIONS)]
    for micro_batches in (1, 3):
        check(name, micro_batches, **{"grad_wrt": source} | options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_and_option_gives_the_update_of_kept_task_gradients(source, options):
    for micro_batches in (1, 3):
        check("upgrad", micro_batches, grad_wrt=source, **OPTIONS[options])


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NAMES)
def test_all_cases_give_the_update_of_kept_task_gradients(name, source, options):
    for micro_batches in (1, 3):
        check(name, micro_batches, **{"grad_wrt": source} | OPTIONS[options])


def test_lengths_in_each_sample_are_gathered_over_micro_batches():
    check("balancer", 4, grad_wrt="representation")


def test_models_without_a_representation_may_train_in_two_passes():
    for micro_batches in (1, 3):
        check("pcgrad", micro_batches, partial(make_model, kind=CrossStitch), head_loss="weighted")


def test_random_numbers_are_drawn_and_buffers_moved_as_in_one_pass():
    torch.manual_seed(0)
    model = HardSharing(TASKS, partial(MLP, (5,), hidden=[50, 40], dropout=0.5, norm="batch")).double()
    twin = copy.deepcopy(model)
    found = train(configured("pcgrad"), model, 3, two_pass=True)
    assert_equal(found, train(configured("pcgrad"), twin, 3, two_pass=False), model, twin)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))


@pytest.mark.parametrize("source", SOURCES)
def test_task_gradients_are_gone_before_the_second_pass(source, monkeypatch):
    rows, alive, take = [], [], TaskGradients.take

    def remember(*arguments, **options):
        gradients = take(*arguments, **options)
        rows.extend(weakref.ref(part) for gradient in gradients.compared for part in gradient)
        return gradients

    monkeypatch.setattr(TaskGradients, "take", remember)
    model = make_model()
    forward = Forward(model, make_batch(missing=False))
    first = next(model.trunk.parameters())
    first.register_hook(lambda _: alive.append(sum(row() is not None for row in rows)))  # in every pass
    forward.backward(configured("mgda", grad_wrt=source), ModelSharing(model), two_pass=True)
    kept = 3 if source == "representation" else 0  # where the second pass begins
    assert rows
    assert alive[-1] == kept


@pytest.mark.parametrize(("source", "micro_batches"), [("shared", 1), ("representation", 3)])
def test_a_run_trains_and_records_its_passes(source, micro_batches, quick):
    arguments = ["weighting=mgda", f"weighting.grad_wrt={source}", f"trainer.micro_batches={micro_batches}"]
    record = read_record(quick(*arguments, "trainer.two_pass=true"))
    assert record["status"] == "completed"
    assert record["passes_per_step"] == {"forward": 1 + (micro_batches > 1), "backward": 3}


def test_what_makes_no_weights_of_task_gradients_is_refused(mtlrun):
    for arguments, reason in {
        (
            "weighting=mgda",
            "trainer.stream_rows=true",
        ): "trainer.two_pass=true: trainer.stream_rows=true ends with that",
        ("weighting=equal",): "trainer.two_pass=true: weighting=equal makes one backward pass as it is; use "
        "trainer.two_pass=false",
        ("weighting=graddrop",): "trainer.two_pass=true: weighting=graddrop combines every entry of the task gradients",
    }.items():
        code, _, err = mtlrun(*QUICK, *arguments, "trainer.two_pass=true")
        assert (code, reason in err) == (2, True), err
        assert not run_folders()
    code, _, err = mtlrun(*QUICK, "weighting=mgda_ub", "trainer.micro_batches=2")
    assert (code, "use trainer.two_pass=true, weighting.grad_wrt=shared or trainer.micro" in err) == (2, True), err
