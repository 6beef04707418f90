"""The picture of training: losses on the training split and main metrics on validation, with bands over the runs."""

from collections.abc import Sequence
from statistics import quantiles
from typing import Any

from mtlrun.comparison.plots.curves import Curve
from mtlrun.comparison.plots.picture import NotDrawnError, Picture
from mtlrun.comparison.plots.style import GRAY, PAGE, arrange, new_figure, styled
from mtlrun.comparison.plots.view import View, bounds_of, count
from mtlrun.records.display import ARROWS

_MOST_TASKS = 4
_POINTS = 3500  # of all curves and their bands, so that the file is small
_EARLY = 0.2  # of training, in which a metric changes so much that later differences are not seen beside it
#: What an evaluation during training is called in metrics.jsonl, and for readers.
_EVALUATIONS = {"val": "on validation", "test_selected": "on test, which selects"}


@styled()
def draw_training_curves(view: View) -> Picture:
    """Return a row for each task: its loss in training on the left, its main metric on validation on the right.

    Raises:
        NotDrawnError: no run has left curves of both kinds.
    """
    tasks = _tags_by_task(view)
    if not tasks:
        raise NotDrawnError("no metrics.jsonl beside the records has losses of training and evaluations")
    shown = dict(list(tasks.items())[:_MOST_TASKS])
    figure = new_figure(PAGE, 1.75 * len(shown) + 0.6)
    grid = figure.subplots(len(shown), 2, squeeze=False, sharex=True)
    points = _POINTS // (3 * 2 * len(shown) * max(1, len(view.standing_out)))
    handles: dict[str, Any] = {}
    for axes_of_task, (train, evaluation, titles) in zip(grid, shown.values(), strict=True):
        for axes, tag, title in zip(axes_of_task, (train, evaluation), titles, strict=True):
            handles |= _draw_panel(view, axes, tag, points)
            axes.set_ylabel(title)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, columnspacing=1.5)
    arrange(figure)
    sentences = ["Lines: mean over the runs of a method; bands: one standard deviation to either side."]
    if view.others:
        sentences.append(f"The gray area has the middle 80 % of the means of the other {len(view.others)} methods.")
    sentences.append("On the right the first fifth of training may be beyond the edge.")
    if any(len(row.counts) > 1 for row in view.rows):
        sentences.append("Runs that did not end are part of the mean as far as they went.")
    if len(shown) < len(tasks):
        sentences.append(f"{len(shown)} of {len(tasks)} tasks are shown.")
    return Picture("training-curves", "Training curves", " ".join(sentences), figure)


def _tags_by_task(view: View) -> dict[str, tuple[str, str, tuple[str, str]]]:
    """Return {task: tag of its loss, tag of its evaluations, titles of both}, as far as runs have them."""
    tags = dict.fromkeys(tag for row in view.rows for tag in view.curves.tags(row))
    found: dict[str, tuple[str, str, tuple[str, str]]] = {}
    for column in view.table.main_columns():
        train = f"train/{column.task}/loss"
        for split, words in _EVALUATIONS.items():
            evaluation = f"{split}/{column.task}/{column.metric}"
            if train in tags and evaluation in tags:
                titles = f"{column.task} loss in training", f"{column.title} {ARROWS[column.direction]}\n{words}"
                found.setdefault(column.task, (train, evaluation, titles))
    return found


def _draw_panel(view: View, axes: Any, tag: str, points: int) -> dict[str, Any]:
    """Draw the curves of a tag; return {label: line or area}."""
    handles: dict[str, Any] = {}
    values: list[float] = []
    late: list[float] = []
    last = 0
    for place, row in enumerate(view.standing_out):
        curve = view.curves.curve(row, tag, points)
        if curve is None:
            continue
        look = view.look(row)
        every = max(1, len(curve.steps) // 4)
        (line,) = axes.plot(
            curve.steps, curve.mean, color=look.color, linestyle=look.line, marker=look.marker, markersize=3.2,
            markevery=(place * every // len(view.standing_out), every), zorder=3,
        )  # fmt: skip
        if curve.num_runs > 1:
            axes.fill_between(curve.steps, curve.low, curve.high, color=look.color, alpha=0.18, linewidth=0, zorder=2)
        handles[look.label] = line
        values += curve.mean
        last = max(last, curve.steps[-1])
        late += [mean for step, mean in zip(curve.steps, curve.mean, strict=True) if step >= _EARLY * curve.steps[-1]]
    middle = _middle([view.curves.curve(row, tag, points) for row in view.others])
    if middle is not None:
        steps, low, high = middle
        label = f"the other {count(len(view.others), 'method')}"
        handles[label] = axes.fill_between(steps, low, high, color=GRAY, alpha=0.25, linewidth=0, zorder=1)
        late += [value for step, *both in zip(steps, low, high, strict=True) if step >= _EARLY * last for value in both]
    if tag.startswith("train/") and values and min(values) > 0 and max(values) > 30 * min(values):
        _scale_by_logarithm(axes)
    elif late and not tag.startswith("train/"):
        low_end, high_end = bounds_of(late)
        margin = 0.05 * (high_end - low_end) or 0.01
        axes.set_ylim(low_end - margin, high_end + margin)
    return handles


def _middle(curves: Sequence[Curve | None]) -> tuple[list[int], list[float], list[float]] | None:
    """Return steps, and the bounds of the middle four fifths of the means; None without curves.

    Steps that fewer than half of the curves have are left out.
    """
    by_step: dict[int, list[float]] = {}
    found = [curve for curve in curves if curve is not None]
    for curve in found:
        for step, mean in zip(curve.steps, curve.mean, strict=True):
            by_step.setdefault(step, []).append(mean)
    steps = [step for step, means in sorted(by_step.items()) if len(means) * 2 >= len(found)]
    if not steps:
        return None
    tenths = [
        quantiles(by_step[step], n=10, method="inclusive") if len(by_step[step]) > 1 else by_step[step]
        for step in steps
    ]
    return steps, [values[0] for values in tenths], [values[-1] for values in tenths]


def _scale_by_logarithm(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
