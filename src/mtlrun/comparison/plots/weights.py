"""The picture of task weights over training: a panel for each method that changes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtlrun.comparison.plots.curves import Curve, fold
from mtlrun.comparison.plots.picture import NotDrawnError, Picture
from mtlrun.comparison.plots.style import COLORS, INK, LINES, PAGE, SMALL, arrange, new_figure, styled
from mtlrun.comparison.plots.view import View, count, listed
from mtlrun.comparison.table import Row

_MOST_PANELS, _COLUMNS, _MOST_TASKS = 12, 4, 8
_POINTS = 3500  # of all curves and their bands, so that the file is small
_CONSTANT = 0.01  # the largest change of a fraction that is none


@styled()
def draw_weights(view: View) -> Picture:
    """Return a panel for each method, with the weight of each task as a fraction of the sum of their sizes.

    Raises:
        NotDrawnError: no method has logged weights that change.
    """
    tasks = list(dict.fromkeys(task for row in view.rows for task in _weights(view, row)))
    fractions = {row.name: _fractions(view, row, tasks) for row in view.rows}
    logged = [row for row in view.rows if fractions[row.name]]
    if not logged:
        raise NotDrawnError("no run has logged task weights")
    changing = [row for row in logged if _changes(fractions[row.name])]
    if not changing:
        raise NotDrawnError(f"the weights of {count(len(logged), 'method')} do not change, and no others are logged")
    rows = changing[:_MOST_PANELS]
    shown = _most_varied(tasks, [fractions[row.name] for row in rows])
    lines = -(-len(rows) // _COLUMNS)
    columns = min(len(rows), _COLUMNS)
    figure = new_figure(PAGE / _COLUMNS * max(columns, 2), 1.45 * lines + 0.55)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    points = _POINTS // (3 * len(rows) * len(shown))
    handles: dict[str, Any] = {}
    for place, axes in enumerate(grid):
        if place >= len(rows):
            axes.set_axis_off()
            continue
        handles |= _draw_panel(axes, shown, fractions[rows[place].name], points)
        axes.set_title(view.look(rows[place]).label, fontsize=SMALL)
        axes.tick_params(labelbottom=place + columns >= len(rows))
    figure.supxlabel("step", fontsize=SMALL)
    figure.supylabel("weight / sum of weights", fontsize=SMALL)
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=4)
    arrange(figure)
    sentences = [
        "Each weight is divided by the sum of the sizes of all, so that methods of different scales can be "
        "compared; the dotted line is where all are equal. Lines: mean over the runs; bands: one standard deviation to "
        "either side."
    ]
    if len(changing) > len(rows):
        rest = [view.look(row).label for row in changing[len(rows) :]]
        sentences.append(f"The {len(rows)} best methods are shown; not {listed(rest)}.")
    if constant := [view.look(row).label for row in logged if row not in changing]:
        sentences.append(f"Constant weights: {listed(constant)}.")
    if without := [view.look(row).label for row in view.rows if row not in logged]:
        sentences.append(f"Without weights that are logged: {listed(without)}.")
    if len(shown) < len(tasks):
        sentences.append(f"Of {len(tasks)} tasks those {len(shown)} are shown whose weights vary most.")
    return Picture("task-weights", "Task weights over training", " ".join(sentences), figure)


def _weights(view: View, row: Row) -> list[str]:
    """Return the tasks whose weights a method logs."""
    return [tag.removeprefix("weight/") for tag in view.curves.tags(row) if tag.startswith("weight/")]


def _fractions(view: View, row: Row, tasks: Sequence[str]) -> dict[str, list[dict[int, float]]]:
    """Return for each task {step: fraction} of each run; a step counts where all weights are known."""
    names = [task for task in tasks if task in _weights(view, row)]
    found: dict[str, list[dict[int, float]]] = {task: [] for task in names}
    for runs in zip(*(view.curves.values(row, f"weight/{task}") for task in names), strict=False):
        sums = {
            step: sum(abs(values[step]) for values in runs)
            for step in runs[0]
            if all(step in values for values in runs)
        }
        for task, values in zip(names, runs, strict=True):
            found[task].append({step: values[step] / total for step, total in sums.items() if total > 0})
    return {task: runs for task, runs in found.items() if any(runs)}


def _changes(fractions: Mapping[str, Sequence[Mapping[int, float]]]) -> bool:
    spans = [max(run.values()) - min(run.values()) for runs in fractions.values() for run in runs if run]
    return max(spans, default=0.0) > _CONSTANT


def _most_varied(tasks: Sequence[str], methods: Sequence[Mapping[str, Sequence[Mapping[int, float]]]]) -> list[str]:
    """Return those tasks whose weights vary most, over methods, runs and steps, in their order."""

    def span(task: str) -> float:
        values = [value for of_method in methods for run in of_method.get(task, []) for value in run.values()]
        return max(values, default=0.0) - min(values, default=0.0)

    chosen = sorted(tasks, key=span, reverse=True)[:_MOST_TASKS]
    return [task for task in tasks if task in chosen]


def _draw_panel(
    axes: Any, tasks: Sequence[str], fractions: Mapping[str, Sequence[Mapping[int, float]]], points: int
) -> dict[str, Any]:
    """Draw the curves of a method; return {task: line}."""
    handles = {}
    axes.axhline(1 / len(fractions), color=INK, linewidth=0.6, linestyle=":")
    for place, task in enumerate(tasks):
        curve: Curve | None = fold(fractions.get(task, []), points)
        if curve is not None:
            color, line = COLORS[place % len(COLORS)], LINES[place // len(COLORS) + place % len(COLORS)]
            (handles[task],) = axes.plot(curve.steps, curve.mean, color=color, linestyle=line)
            if curve.num_runs > 1:
                axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    return handles
