"""trainer.monitor: what it may be, and which tasks are then selected together."""

import math
import re
from types import SimpleNamespace

import pytest

from mtlrun.config.settings import Settings
from mtlrun.errors import ConfigError
from mtlrun.setup.selection_rules import check_declared_values, check_monitor, make_rules, make_skills
from mtlrun.tasks import Classification, Regression

TASKS = {"digit": Classification(3), "size": Regression()}
TOGETHER, APART = [["digit", "size"]], [["digit"], ["size"]]


@pytest.mark.parametrize("monitor", ["mean_skill", "per_task", "digit/accuracy", "size/loss"])
def test_rules_and_metrics_can_be_monitored(monitor):
    check_monitor(monitor, TASKS)


@pytest.mark.parametrize("monitor", ["accuracy", "digit/rmse", "gains", ""])
def test_an_unknown_metric_is_refused_with_the_list_of_known_ones(monitor):
    allowed = (
        "mean_skill, per_task, digit/loss, digit/accuracy, digit/f1, digit/balanced_accuracy, digit/mcc, "
        "digit/log_loss, digit/ece, size/loss, size/rmse, size/mae, size/r2, size/spearman"
    )
    with pytest.raises(ConfigError, match=re.escape(f"must be one of {allowed}, found {monitor!r}")):
        check_monitor(monitor, TASKS)


def test_the_rule_of_earlier_versions_is_refused_with_the_name_of_its_successor():
    with pytest.raises(ConfigError, match=r"mean_relative_gain is gone: .*; use mean_skill"):
        check_monitor("mean_relative_gain", TASKS)


@pytest.mark.parametrize(
    ("monitor", "independent", "expected"),
    [
        ("mean_skill", False, TOGETHER),
        ("mean_skill", True, APART),
        ("per_task", False, APART),
        ("per_task", True, APART),
        ("digit/f1", False, TOGETHER),
        ("digit/f1", True, TOGETHER),
    ],
)
def test_tasks_are_selected_together_unless_they_are_independent_or_the_user_asks_for_it(
    monitor, independent, expected
):
    model, dataset = SimpleNamespace(independent_tasks=independent), SimpleNamespace(protocol="standard")
    settings = Settings(monitor=monitor, patience=3, min_delta=0.5)
    rules = make_rules(settings, dataset, TASKS, model, make_skills(TASKS))
    assert [rule.tasks for rule in rules] == expected
    assert {(rule.monitor, rule.patience, rule.min_delta) for rule in rules} == {(monitor, 3, 0.5)}


@pytest.mark.parametrize("declared", ["perfect_values", "trivial_values"])
def test_declared_values_of_unknown_metrics_are_refused(declared):
    task = type("Mine", (Regression,), {declared: {"rsme": 0.0, "rmse": 1.0}})()
    with pytest.raises(ConfigError, match=rf"tasks.size: Mine.{declared} names rsme; its metrics are loss, rmse"):
        check_declared_values(TASKS | {"size": task})
    check_declared_values(TASKS)


@pytest.mark.parametrize("min_delta", [-0.1, math.nan, math.inf])
def test_min_delta_is_a_finite_number(min_delta):
    with pytest.raises(ValueError, match="min_delta must be >= 0"):
        Settings(epochs=1, min_delta=min_delta)
