"""Selection of the best evaluation: relative gains, `trainer.monitor`, min_delta and patience."""

import math
import re

import pytest

from mtlrun.errors import ConfigError
from mtlrun.training.selection import Selection, check_monitor, relative_gain

DIRECTIONS = {"digit": {"loss": "min", "accuracy": "max"}, "size": {"loss": "min", "rmse": "min"}}
MAIN = {"digit": "accuracy", "size": "rmse"}


def metrics(accuracy, rmse, digit_loss=1.0):
    return {"digit": {"loss": digit_loss, "accuracy": accuracy}, "size": {"loss": rmse**2, "rmse": rmse}}


def make(rule="mean_relative_gain", tasks=("digit", "size"), **options):
    return Selection(tasks, rule, DIRECTIONS, MAIN, **options)


def update_all(selection, *evaluations):
    """Make evaluations numbered from 1, ten steps and one epoch each."""
    return [
        selection.update(number, epoch=number, step=10 * number, metrics=found)
        for number, found in enumerate(evaluations, start=1)
    ]


@pytest.mark.parametrize(
    ("candidate", "reference", "direction", "expected"),
    [
        (0.9, 0.8, "max", 0.125),
        (0.7, 0.8, "max", -0.125),
        (3.0, 4.0, "min", 0.25),
        (5.0, 4.0, "min", -0.25),
        (-1.0, -4.0, "max", 0.75),
        (-5.0, -4.0, "min", 0.25),
        (0.3, 0.0, "max", 1.0),
        (-0.3, 0.0, "max", -1.0),
        (0.3, 0.0, "min", -1.0),
        (0.0, 0.0, "max", 0.0),
        (math.nan, 0.5, "max", -1.0),
        (math.inf, 0.5, "max", -1.0),
        (0.5, math.nan, "min", 1.0),
        (math.nan, math.nan, "max", 0.0),
    ],
)
def test_relative_gain(candidate, reference, direction, expected):
    assert relative_gain(candidate, reference, direction) == pytest.approx(expected)


def test_first_evaluation_is_selected_whatever_it_is():
    selection = make()
    assert update_all(selection, metrics(math.nan, 9.0)) == [True]
    assert (selection.number, selection.epoch, selection.step) == (1, 1, 10)


def test_gain_is_the_mean_over_the_tasks_main_metrics():
    selection = make()
    update_all(selection, metrics(0.8, 4.0))
    assert selection.relative_gain(metrics(0.9, 5.0, digit_loss=99.0)) == pytest.approx((0.125 - 0.25) / 2)


def test_an_evaluation_replaces_the_selected_one_only_if_the_tasks_gain_on_average():
    selection = make()
    # Against 0.8 and 4: +12.5% -25%, then +12.5% -10%; then against 0.9 and 4.4: nothing, then a loss.
    found = update_all(
        selection, metrics(0.8, 4.0), metrics(0.9, 5.0), metrics(0.9, 4.4), metrics(0.9, 4.4), metrics(0.85, 4.4)
    )
    assert found == [True, False, True, False, False]
    assert (selection.number, selection.epoch, selection.step) == (3, 3, 30)
    assert selection.metrics == metrics(0.9, 4.4)


def test_monitor_may_name_one_metric_of_one_task():
    selection = make("digit/loss")
    found = update_all(selection, metrics(0.8, 4.0, 1.0), metrics(0.9, 3.0, 1.1), metrics(0.1, 9.0, 0.9))
    assert found == [True, False, True]
    assert selection.monitored() == [("digit", "loss")]


def test_a_selection_of_some_tasks_counts_and_keeps_only_these():
    selection = make(tasks=["size"])
    assert update_all(selection, metrics(0.8, 4.0), metrics(0.1, 3.9), metrics(0.9, 4.5)) == [True, True, False]
    assert selection.metrics == {"size": {"loss": 3.9**2, "rmse": 3.9}}
    assert selection.monitored() == [("size", "rmse")]


def test_gain_must_exceed_min_delta():
    selection = make("size/rmse", min_delta=0.25)
    assert update_all(selection, metrics(0, 4.0), metrics(0, 3.5), metrics(0, 3.0), metrics(0, 2.99)) == [
        True,
        False,
        False,
        True,
    ]


def test_a_finite_evaluation_replaces_one_that_is_not():
    selection = make("size/rmse")
    assert update_all(selection, metrics(0, math.nan), metrics(0, 1e9), metrics(0, math.nan)) == [True, True, False]


def test_evaluation_that_is_repeated_after_a_crash_is_selected_again():
    selection = make("size/rmse")
    update_all(selection, metrics(0, 4.0), metrics(0, 3.0))
    assert selection.update(2, 2, 20, metrics(0, 3.0))
    assert not selection.update(3, 3, 30, metrics(0, 3.0))


def test_selected_metrics_are_a_copy():
    selection, found = make(), metrics(0.8, 4.0)
    update_all(selection, found)
    found["digit"]["accuracy"] = 0.0
    assert selection.metrics["digit"]["accuracy"] == 0.8


def test_patience_counts_evaluations_since_the_selected_one():
    selection = make("size/rmse", patience=2)
    update_all(selection, metrics(0, 4.0), metrics(0, 3.0), metrics(0, 3.5), metrics(0, 3.5))
    assert [selection.out_of_patience(number) for number in (2, 3, 4, 5)] == [False, False, True, True]


def test_without_patience_training_is_never_ended():
    selection = make()
    update_all(selection, metrics(0.8, 4.0))
    assert not selection.out_of_patience(10**6)


def test_state_makes_another_selection_continue_as_the_first():
    selection, other = make(patience=3), make(patience=3)
    update_all(selection, metrics(0.8, 4.0), metrics(0.9, 4.0))
    other.load_state_dict(selection.state_dict())
    assert other == selection
    assert other != make(patience=3)
    assert not other.update(3, 3, 30, metrics(0.85, 4.0))
    assert other.out_of_patience(5)


def test_summary_holds_the_rule_and_the_step():
    selection = make(tasks=("digit",))
    update_all(selection, metrics(0.8, 4.0), metrics(0.9, 4.0))
    assert selection.summary() == {"tasks": ["digit"], "rule": "mean_relative_gain", "epoch": 2, "step": 20}


@pytest.mark.parametrize("rule", ["mean_relative_gain", "digit/accuracy", "size/loss"])
def test_known_metrics_can_be_monitored(rule):
    check_monitor(rule, DIRECTIONS)


@pytest.mark.parametrize("rule", ["accuracy", "digit/rmse", "gains", ""])
def test_unknown_metric_is_refused_with_the_list_of_known_ones(rule):
    allowed = "mean_relative_gain, digit/loss, digit/accuracy, size/loss, size/rmse"
    with pytest.raises(ConfigError, match=re.escape(f"must be one of {allowed}, found {rule!r}")):
        check_monitor(rule, DIRECTIONS)
