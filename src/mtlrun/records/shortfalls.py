"""Shortfalls: the tasks for which a simple predictor is clearly better than the run."""

from collections.abc import Mapping
from math import isfinite, nan

from mtlrun.records.display import format_value
from mtlrun.records.record import Record

_NAMES = {"constant": "a constant", "linear": "a linear model", "boosting": "gradient boosting"}
# How much higher the skill of a baseline is to be pointed out.
_MARGIN = 0.05


def explain_baselines(record: Record) -> str:
    """Return what the columns of the baselines are; "" if there are none."""
    if not record.baselines:
        return ""
    names = list(record.baselines)
    what = "a simple predictor" if len(names) == 1 else "simple predictors"
    return f"{', '.join(names)}: {what} fitted to the training split, on test"


def describe_shortfalls(record: Record) -> list[str]:
    """Return a line on each task whose main metric on test is clearly better for one of the baselines."""
    lines = []
    for task, metric in record.main_metrics.items():
        values = {name: of_tasks[task][metric] for name, of_tasks in record.baselines.items() if task in of_tasks}
        finite = {name: value for name, value in values.items() if isfinite(value)}
        value = record.test.get(task, {}).get(metric, nan)
        if not finite or not isfinite(value):
            continue
        direction = record.directions[task][metric]
        best = (max if direction == "max" else min)(finite, key=lambda name: finite[name])
        if _skill_gap(finite[best], value, direction, record.trivial.get("test", {}).get(task, {}), metric) > _MARGIN:
            numbers = ", ".join(f"{name} {format_value(number)}" for name, number in values.items())
            lines.append(f"{task} {metric}: {numbers}, this run {format_value(value)}: {_NAMES[best]} is better")
    return lines


def _skill_gap(baseline: float, value: float, direction: str, trivial: Mapping[str, float], metric: str) -> float:
    """Return how much higher the skill of a baseline is than that of a value; see `mtlrun.training.skill`."""
    perfect, sign = (1.0, 1) if direction == "max" else (0.0, -1)
    constant = trivial.get(metric, nan)
    scale = abs(perfect - constant) if isfinite(constant) and constant != perfect else 1.0
    return sign * (baseline - value) / scale
