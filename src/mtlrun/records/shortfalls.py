"""Shortfalls: the tasks for which a simple predictor is clearly better than the run."""

from math import isfinite, nan, sqrt

from mtlrun.records.display import format_value
from mtlrun.records.record import Record

_NAMES = {"constant": "a constant", "linear": "a linear model", "boosting": "gradient boosting"}
# How much higher the skill of a baseline is, at least, to be pointed out.
_MARGIN = 0.05
#: Samples, or groups of them: of fewer, an interval means little.
FEW = 10


def explain_baselines(record: Record) -> str:
    """Return what the columns of the baselines are; "" if there are none."""
    if not record.baselines:
        return ""
    names = list(record.baselines)
    what = "a simple predictor" if len(names) == 1 else "simple predictors"
    return f"{', '.join(names)}: {what} fitted to the training split, on test"


def describe_shortfalls(record: Record) -> list[str]:
    """Return a line on each task whose main metric on test is clearly better for one of the baselines.

    Its skill is higher by 0.05, and the metric lies beyond the interval of the run's; without an interval, or of fewer
    than 10 samples, its skill is higher by 1 / sqrt(n).
    """
    lines = []
    for task, metric in record.main_metrics.items():
        values = {
            name: of_tasks[task][metric]
            for name, of_tasks in record.baselines.items()
            if metric in of_tasks.get(task, {})
        }
        finite = {name: value for name, value in values.items() if isfinite(value)}
        value = record.test.get(task, {}).get(metric, nan)
        if finite and isfinite(value):
            choose = max if record.directions[task][metric] == "max" else min
            best = choose(finite, key=lambda name: finite[name])
            if _is_clearly_better(finite[best], value, record, task, metric):
                numbers = ", ".join(f"{name} {format_value(number)}" for name, number in values.items())
                lines.append(f"{task} {metric}: {numbers}, this run {format_value(value)}: {_NAMES[best]} is better")
    return lines


def _is_clearly_better(baseline: float, value: float, record: Record, task: str, metric: str) -> bool:
    direction = record.directions[task][metric]
    perfect, sign = (1.0, 1) if direction == "max" else (0.0, -1)
    constant = record.trivial.get("test", {}).get(task, {}).get(metric, nan)
    # As in `mtlrun.training.skill`.
    scale = abs(perfect - constant) if isfinite(constant) and constant != perfect else 1.0
    gap: float = sign * (baseline - value) / scale
    split = record.splits.get("test", {})
    samples: int = max(1, split.get("labeled", {}).get(task, split.get("samples", 1)))
    bounds = record.intervals.get("test", {}).get(task, {}).get(metric)
    if bounds is None or samples < FEW:
        return gap > max(_MARGIN, 1 / sqrt(samples))
    low, high = bounds
    return gap > _MARGIN and (baseline > high if direction == "max" else baseline < low)
