"""Shortfalls: which tasks are pointed out, since a simple predictor is clearly better."""

from math import nan

import pytest

from mtlrun.records.record import Record
from mtlrun.records.shortfalls import describe_shortfalls, explain_baselines


def record(baselines, value, *, metric="accuracy", direction="max", constant=0.5, samples=10_000, interval=None):
    """Return the record of a run with one task."""
    return Record(
        "run", {}, main_metrics={"kind": metric}, directions={"kind": {metric: direction}},
        test={"kind": {metric: value}}, trivial={"test": {"kind": {metric: constant}}},
        baselines={name: {"kind": {metric: number}} for name, number in baselines.items()},
        intervals={"test": {"kind": {metric: interval}}} if interval else {},
        splits={"test": {"samples": 99_999, "labeled": {"kind": samples}}},
    )  # fmt: skip


def test_the_best_predictor_is_named_with_all_numbers():
    found = record({"constant": 0.41, "linear": 1.0, "boosting": 0.98}, 0.71)
    assert describe_shortfalls(found) == [
        "kind accuracy: constant 0.4100, linear 1.0000, boosting 0.9800, this run 0.7100: a linear model is better"
    ]
    found = record(
        {"constant": 70.0, "linear": 80.5, "boosting": 30.25}, 50.0, metric="rmse", direction="min", constant=70
    )
    (line,) = describe_shortfalls(found)
    assert line.startswith("kind rmse: constant 70")
    assert line.endswith(": gradient boosting is better")
    (line,) = describe_shortfalls(record({"constant": 0.41}, 0.2))
    assert line.endswith(": a constant is better")


@pytest.mark.parametrize(
    ("linear", "value", "samples", "pointed_out"),
    [
        (0.9, 0.95, 10_000, False),
        (0.9, 0.9, 10_000, False),
        (0.92, 0.9, 10_000, False),  # a skill of 0.84 and of 0.8
        (0.93, 0.9, 10_000, True),
        (0.93, 0.9, 100, False),  # 1/sqrt(n) is 0.1
        (0.96, 0.9, 100, True),
        (1.0, 0.9, 9, False),
        (nan, 0.9, 10_000, False),
        (0.9, nan, 10_000, False),
    ],
)
def test_a_difference_in_skill_counts_that_is_more_than_noise(linear, value, samples, pointed_out):
    found = record({"constant": nan, "linear": linear}, value, samples=samples)
    assert bool(describe_shortfalls(found)) == pointed_out


def test_errors_have_a_skill_relative_to_the_constant():
    for error, pointed_out in [(97.0, False), (93.0, True)]:
        found = record({"linear": error}, 99.0, metric="rmse", direction="min", constant=100.0)
        assert bool(describe_shortfalls(found)) == pointed_out


@pytest.mark.parametrize(
    ("linear", "interval", "samples", "pointed_out"),
    [
        (0.85, [0.76, 0.84], 40, True),  # 1/sqrt(n) is 0.16, and the skills are 0.7 and 0.6
        (0.83, [0.76, 0.84], 40, False),
        (0.82, [0.79, 0.81], 9000, False),  # a small difference, though it is certain
        (0.85, [0.79, 0.81], 9, False),  # an interval of nine samples means little
    ],
)
def test_a_difference_counts_that_is_beyond_the_interval(linear, interval, samples, pointed_out):
    found = record({"linear": linear}, 0.8, interval=interval, samples=samples)
    assert bool(describe_shortfalls(found)) == pointed_out
    error = record({"linear": 1 - linear}, 0.2, metric="mae", direction="min", samples=samples,
                   interval=[1 - interval[1], 1 - interval[0]])  # fmt: skip
    assert bool(describe_shortfalls(error)) == pointed_out


def test_a_run_without_baselines_has_nothing_to_say():
    assert describe_shortfalls(record({}, 0.7)) == []
    assert explain_baselines(record({}, 0.7)) == ""
    assert (
        explain_baselines(record({"constant": 1}, 1))
        == "constant: a simple predictor fitted to the training split, on test"
    )
