"""The Deltas and mean ranks: the numbers of published tables, and SciPy's ranks."""

from math import isnan, nan
from random import Random

import pytest
from scipy.stats import rankdata
from synthetic import make_record

from mtlrun.comparison.building import compare
from mtlrun.comparison.deltas import delta_m, delta_p, mean_ranks, ranks, relative_gain
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Options

# NYUv2 with SegNet and MTAN, as Nash-MTL prints it; Delta_m at the end of each row.
DIRECTIONS = {"miou": "max", "pixel_accuracy": "max", "abs_err": "min", "rel_err": "min", "mean": "min",
              "median": "min", "within_11": "max", "within_22": "max", "within_30": "max"}  # fmt: skip
TASKS = {"segmentation": ("miou", "pixel_accuracy"), "depth": ("abs_err", "rel_err"),
         "normals": ("mean", "median", "within_11", "within_22", "within_30")}  # fmt: skip
PUBLISHED = {
    "single": (38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15, 0.0),
    "equal": (39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08, 5.59),
    "rlw": (37.17, 63.77, 0.5759, 0.2410, 28.27, 24.18, 22.26, 47.05, 60.62, 7.78),
    "dwa": (39.11, 65.31, 0.5510, 0.2285, 27.61, 23.18, 24.17, 50.18, 62.39, 3.57),
    "mgda": (30.47, 59.90, 0.6070, 0.2555, 24.88, 19.45, 29.18, 56.88, 69.36, 1.38),
    "pcgrad": (38.06, 64.64, 0.5550, 0.2325, 27.41, 22.80, 23.86, 49.83, 63.14, 3.97),
    "nash_mtl": (40.13, 65.93, 0.5261, 0.2171, 25.26, 20.08, 28.40, 55.47, 68.15, -4.04),
}


def published_runs():
    for name, row in PUBLISHED.items():
        values = dict(zip(DIRECTIONS, row, strict=False))
        test = {task: {metric: values[metric] for metric in metrics} for task, metrics in TASKS.items()}
        method = {"model": "single"} if name == "single" else {"weighting": name}
        yield Run(make_record(tasks=TASKS, test=test, directions=DIRECTIONS, dataset="nyuv2", **method))


def test_published_rows_get_the_printed_delta():
    (table,) = compare(list(published_runs()), Options(metrics=("all",))).tables
    assert len(table.metrics) == 9
    found = {"single" if row.label["model"] == "single" else row.label["weighting"]: row for row in table.configs}
    for name, row in PUBLISHED.items():
        assert found[name].cells["delta_m"].mean == pytest.approx(row[-1], abs=0.01), name
    # By hand, for the tasks of Nash-MTL: their mean gains are those of 2, 2 and 5 metrics.
    gains = [
        (1.83 / 38.30 + 2.17 / 63.76) / 2,
        (0.1493 / 0.6754 + 0.0609 / 0.2780) / 2,
        -(0.25 / 25.01 + 0.87 / 19.21 + 1.74 / 30.14 + 1.73 / 57.20 + 1.0 / 69.15) / 5,
    ]
    assert found["nash_mtl"].cells["delta_p"].mean == pytest.approx(100 * sum(gains) / 3)
    # The best and the second of a column, and of Delta_m.
    assert (found["nash_mtl"].cells["delta_m"].place, found["single"].cells["delta_m"].place) == (1, 2)
    assert found["mgda"].cells["normals/mean"].place == 1


def test_the_two_deltas_are_opposite_only_if_tasks_have_as_many_metrics():
    equal = {"a": [1.0, 3.0], "b": [5.0, -1.0]}
    assert delta_m(equal) == -delta_p(equal) == -2.0
    assert (delta_m({"a": [1.0, 3.0], "b": [5.0]}), delta_p({"a": [1.0, 3.0], "b": [5.0]})) == (-3.0, 3.5)


def test_a_gain_has_the_sign_of_the_direction_whatever_that_of_the_baseline():
    assert relative_gain(0.6, 0.5, "max") == pytest.approx(20)
    assert relative_gain(0.6, 0.5, "min") == pytest.approx(-20)
    assert relative_gain(-0.1, -0.2, "max") == pytest.approx(50)
    assert all(isnan(relative_gain(*values, "max")) for values in [(1, 0), (nan, 1), (1, nan), (float("inf"), 1)])


def test_ranks_are_those_of_scipy_with_ties_averaged():
    draw = Random(0)
    for _ in range(50):
        rows = [[draw.randint(0, 4) for _ in range(3)] for _ in range(draw.randint(1, 9))]
        directions = [draw.choice(["max", "min"]) for _ in range(3)]
        signed = [[-v if d == "max" else v for v, d in zip(row, directions, strict=True)] for row in rows]
        assert mean_ranks(rows, directions) == pytest.approx(rankdata(signed, axis=0).mean(axis=1).tolist())
    assert ranks([3, nan, 1, 3], "max")[::2] == [1.5, 3.0]
    # A row without a value is not ranked, and changes no other rank.
    assert mean_ranks([[1.0, 1.0], [nan, 0.0], [2.0, 2.0]], ["min", "min"])[::2] == [1.0, 2.0]
    assert isnan(mean_ranks([[1.0, 1.0], [nan, 0.0]], ["min", "min"])[1])
