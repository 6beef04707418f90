"""How metrics are written."""

import io
import math

import pytest
from rich.console import Console

from mtlrun.records.display import format_interval, format_value, print_results


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
    assert format_interval([477887894.0, 764550259.0]) == "[4.8e+08, 7.6e+08]"
    assert format_interval([1600123456.0, 1600129999.0]) == "[1.600123e+09, 1.60013e+09]"
    assert format_interval([2e9, 2e9]) == "[2e+09, 2e+09]"
    assert format_interval(None) == ""


NUMBERS = {"loss": 0.0029, "average_precision": 0.98, "log_loss": 0.0029, "rmse": 12345.6789}
DIRECTIONS = {task: dict.fromkeys(NUMBERS, "min") for task in ("species", "median_house_value")}
INTERVALS = {"test": {task: {"loss": [-0.007, 0.035], "log_loss": [-0.007, 0.035]} for task in DIRECTIONS}}


def printed(width: int, values: dict[str, float] = NUMBERS) -> list[str]:
    columns = ("test", "val", "constant", "linear", "boosting")
    console = Console(file=io.StringIO(), width=width)
    print_results(
        console, "result", {name: dict.fromkeys(DIRECTIONS, values) for name in columns}, DIRECTIONS, INTERVALS
    )
    assert console.width == width
    return console.file.getvalue().splitlines()


def test_results_fit_into_a_terminal_of_80_columns_with_a_line_for_each_metric():
    wide, narrow = printed(130), printed(80)
    assert max(map(len, narrow)) <= 80
    assert len(narrow) == len(wide) + len(DIRECTIONS)  # the names of the tasks have lines of their own
    assert "median_house_value:" in map(str.rstrip, narrow)
    cells = [line.split() for line in narrow if line.startswith("rmse ↓")]
    assert cells == [["rmse", "↓", *["12345.68"] * 5]] * 2


def test_results_are_complete_in_a_terminal_of_any_width():
    assert printed(20) == printed(80)


def test_a_metric_that_is_the_loss_itself_shares_its_row():
    lines = printed(130)
    assert sum("loss = log_loss ↓ " in line and "[-0.007, 0.035]" in line for line in lines) == 2
    assert sum("loss" in line for line in lines) == 2
    assert sum("loss" in line for line in printed(130, NUMBERS | {"log_loss": 0.0028})) == 4
