"""Shortfalls: the tasks for which a simple predictor is clearly better than the run."""

from math import isfinite, nan

from mtlrun.records.display import format_value
from mtlrun.records.record import Record

_NAMES = {"constant": "a constant", "linear": "a linear model", "boosting": "gradient boosting"}
# How much higher the skill of a baseline is, at least, to be pointed out; of few test samples, more.
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
        constant = record.trivial.get("test", {}).get(task, {}).get(metric, nan)
        if _skill_gap(finite[best], value, direction, constant) > max(_MARGIN, _count_test(record, task) ** -0.5):
            numbers = ", ".join(f"{name} {format_value(number)}" for name, number in values.items())
            lines.append(f"{task} {metric}: {numbers}, this run {format_value(value)}: {_NAMES[best]} is better")
    return lines


def _count_test(record: Record, task: str) -> int:
    """Return the number of test samples with a label of the task."""
    split = record.splits["test"]
    labeled: int = split["labeled"].get(task, split["samples"])
    return max(labeled, 1)


def _skill_gap(baseline: float, value: float, direction: str, constant: float) -> float:
    """Return how much higher the skill of a baseline is than that of a value; see `mtlrun.training.skill`."""
    perfect, sign = (1.0, 1) if direction == "max" else (0.0, -1)
    scale = abs(perfect - constant) if isfinite(constant) and constant != perfect else 1.0
    return sign * (baseline - value) / scale
