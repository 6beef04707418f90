"""Weighting by homoscedastic uncertainty."""

from math import exp, log

import numpy
import pytest
import torch
from helpers import shipped_node
from scipy.optimize import minimize

from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.config.instantiate import locate
from mtlrun.setup.prepare import prepare
from mtlrun.weightings import Uncertainty, combine

LOSSES = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)


def make(*args, num_tasks=3, log_variance=None, **options):
    weighting = Uncertainty(*args, **options)
    weighting.setup(num_tasks)
    if log_variance is not None:
        weighting.log_variance.data = torch.as_tensor(log_variance, dtype=torch.float64)
    return weighting


def weights(weighting, losses=LOSSES):
    return combine(weighting, torch.eye(len(losses), dtype=torch.float64), losses)


def test_objective_at_the_start_is_half_the_sum_of_the_losses():
    assert make().objective(LOSSES).item() == pytest.approx(0.5 * 5.3)


def test_objective_equals_the_formula_written_out():
    found = make(["regression", "classification", "regression"], log_variance=[0.4, -1.0, 2.0]).objective(LOSSES)
    expected = 0.5 * exp(-0.4) * 0.3 + 0.2 + exp(1.0) * 1.0 - 0.5 + 0.5 * exp(-2.0) * 4.0 + 1.0
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_weights_follow_the_form_of_each_task():
    found = weights(make(["regression", "classification", "regression"], log_variance=[0.4, -1.0, 2.0]))
    assert found.tolist() == pytest.approx([0.5 * exp(-0.4), exp(1.0), 0.5 * exp(-2.0)], rel=1e-12)


def test_one_form_holds_for_all_tasks():
    assert weights(make("classification")).tolist() == [1, 1, 1]
    assert weights(make("regression")).tolist() == [0.5, 0.5, 0.5]


def test_gradient_with_respect_to_the_log_variance_is_half_minus_the_weighted_loss():
    weighting = make(log_variance=[0.4, -1.0, 2.0])
    weighting.objective(LOSSES).backward()
    expected = 0.5 - 0.5 * torch.exp(-weighting.log_variance.detach()) * LOSSES
    torch.testing.assert_close(weighting.log_variance.grad, expected)


@pytest.mark.parametrize("form", ["regression", "classification"])
def test_weights_at_the_optimum_are_one_over_twice_the_loss(form):
    def objective(log_variance):
        return make(form, log_variance=log_variance).objective(LOSSES).item()

    optimum = minimize(objective, numpy.zeros(3), tol=1e-12).x
    torch.testing.assert_close(weights(make(form, log_variance=optimum)), 1 / (2 * LOSSES), rtol=1e-4, atol=0)


def test_log1p_equals_the_formula_of_liebel_and_koerner_written_out():
    squares = torch.tensor([0.3, 1.0, 20.0], dtype=torch.float64)  # of their learned numbers
    weighting = make("log1p", log_variance=squares.log())
    expected = sum(0.5 / s * loss + log(1 + s) for s, loss in zip(squares.tolist(), LOSSES.tolist(), strict=True))
    assert weighting.objective(LOSSES).item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(weights(weighting), 0.5 / squares)
    mixed = make(["log1p", "classification", "regression"], log_variance=squares.log()).objective(LOSSES).item()
    expected = 0.5 / 0.3 * 0.3 + log(1.3) + 1.0 + 0.5 / 20 * 4 + 0.5 * log(20)
    assert mixed == pytest.approx(expected, rel=1e-12)


def test_objective_of_log1p_is_positive_where_that_of_regression_is_not():
    for log_variance in (-40.0, -8.0, 0.0, 40.0):
        small = torch.full((3,), 1e-30, dtype=torch.float64)
        assert make("log1p", log_variance=[log_variance] * 3).objective(small).item() > 0
    assert make("regression", log_variance=[-8.0] * 3).objective(LOSSES * 1e-9).item() < 0


def test_training_brings_the_weights_of_log1p_to_their_optimum(take_step):
    weighting = make("log1p", optimizer="sgd", lr=0.3)
    for _ in range(300):
        take_step(weighting, torch.eye(3, dtype=torch.float64), LOSSES)
    expected = 2 / (LOSSES + (LOSSES**2 + 8 * LOSSES).sqrt())
    torch.testing.assert_close(weights(weighting), expected, rtol=1e-4, atol=0)


def test_optimum_of_the_regression_form_is_the_log_of_the_loss():
    weighting = make(log_variance=LOSSES.log())
    weighting.objective(LOSSES).backward()
    torch.testing.assert_close(weighting.log_variance.grad, torch.zeros(3, dtype=torch.float64))


def test_training_brings_the_weights_to_the_optimum(take_step):
    weighting = make(optimizer="sgd", lr=0.2)
    for _ in range(300):
        take_step(weighting, torch.eye(3, dtype=torch.float64), LOSSES)
    torch.testing.assert_close(weights(weighting), 1 / (2 * LOSSES), rtol=1e-4, atol=0)


def test_initial_value_holds_for_all_tasks():
    assert make(init=-0.5).log_variance.tolist() == [-0.5, -0.5, -0.5]
    assert weights(make(init=-0.5)).tolist() == pytest.approx([0.5 * exp(0.5)] * 3, rel=1e-6)


def test_only_tasks_with_a_loss_enter_the_objective(take_step):
    forms = ["regression", "regression", "classification"]
    weighting = make(forms, log_variance=[0.4, 7.0, log(2)], optimizer="sgd", lr=0.1)
    weighting.active = torch.tensor([0, 2])
    assert weighting.objective(torch.tensor([3.0, 5.0])).item() == pytest.approx(
        0.5 * exp(-0.4) * 3 + 0.2 + 0.5 * 5 + 0.5 * log(2)
    )
    take_step(weighting, torch.eye(2), torch.tensor([3.0, 5.0]), active=[0, 2])
    assert weighting.log_variance[1] == 7
    assert weighting.log_variance[2].item() == pytest.approx(log(2) + 0.1 * (2.5 - 0.5))


def test_another_number_of_forms_than_tasks_is_refused():
    with pytest.raises(ValueError, match="form must be one word, or one for each of the 3 tasks, found 2"):
        make(["regression", "classification"])


def test_auto_is_classification_for_tasks_whose_loss_is_a_cross_entropy():
    weighting = make(["auto", "auto", "regression"])
    assert weights(weighting).tolist() == [0.5, 0.5, 0.5]
    weighting.set_categorical([True, False, True])
    assert weights(weighting).tolist() == [1.0, 0.5, 0.5]


def test_a_state_without_the_form_is_that_of_any_form():
    """Checkpoints of runs do not hold which penalty a task has: the config does."""
    weighting = make("log1p")
    assert set(weighting.state_dict()) == {"factors", "log_variance", "_extra_state"}
    fresh = make("log1p", init=3.0)
    fresh.load_state_dict(weighting.state_dict())
    assert fresh.objective(LOSSES).item() == weighting.objective(LOSSES).item()


@pytest.mark.parametrize("words", [["weighting=uncertainty"], ["weighting=pcgrad", "weighting/losses=uncertainty"]])
def test_a_run_takes_the_form_from_the_kinds_of_its_tasks(words):
    parts = prepare(
        compose(
            [
                "dataset=scenes",
                "dataset.num_train=8",
                "dataset.num_val=8",
                "dataset.num_test=8",
                "trainer.batch_size=8",
                *words,
            ]
        )
    )
    (method,) = parts.weighting.capable_of(Uncertainty)
    expected = {"segmentation": 1.0, "depth": 0.5, "normals": 0.5}
    assert method.factors.tolist() == [expected[name] for name in parts.tasks]


def test_the_tasks_with_a_cross_entropy_are_those_of_classes():
    kinds = {entry.name: locate(shipped_node("task", entry.name)["_target_"], "task") for entry in entries("task")}
    categorical = {name for name, kind in kinds.items() if kind.categorical}
    assert categorical == {"classification", "binary", "multilabel", "ordinal", "segmentation"}
