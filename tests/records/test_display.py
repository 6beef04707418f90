"""How metrics are written."""

import math

import pytest

from mtlrun.records.display import format_interval, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"), (0.5, "0.5000"), (-0.25, "-0.2500"), (999.5, "999.5000"), (1234.5678, "1234.57"),
        (206451.4062, "206451"), (1.7e15, "1.7e+15"), (0.00012346, "0.000123"), (3e-9, "3e-09"), (math.inf, "inf"),
        (math.nan, "-"),
    ],
)  # fmt: skip
def test_metrics_in_any_unit_keep_some_digits_and_no_noise(value, text):
    assert format_value(value) == text


def test_a_spread_has_the_decimals_of_its_mean():
    assert format_value(0.0004, beside=0.5) == "0.0004"
    assert format_value(12.3456, beside=206451.4) == "12"
    assert format_value(3e-7, beside=2e-5) == "3e-07"


def test_an_interval_may_have_no_width():
    assert format_interval([0.25, 0.25]) == "[0.2500, 0.2500]"
    assert format_interval([0.25, 0.75]) == "[0.25, 0.75]"
    assert format_interval([0.123456, 0.123499]) == "[0.1235, 0.1235]"
    assert format_interval([1.24e-6, 3.1e-6]) == "[1.2e-06, 3.1e-06]"
    assert format_interval([31278.2, 72238.9]) == "[31278, 72239]"
    assert format_interval(None) == ""
