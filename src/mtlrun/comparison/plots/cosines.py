"""The heat map of the cosines between task gradients over training."""

from collections.abc import Sequence
from itertools import combinations
from math import isnan, nan
from statistics import fmean
from typing import Any

from mtlrun.comparison.plots.picture import NotDrawnError, Picture
from mtlrun.comparison.plots.style import COLUMN, PAGE, SMALL, arrange, new_figure, styled
from mtlrun.comparison.plots.view import View, listed, signed
from mtlrun.comparison.table import Row
from mtlrun.records.tags import cosine_tag

_MOST_PANELS, _COLUMNS, _BINS = 6, 3, 24
_INSIDE = 0.98  # of the values are inside the scale, so that a few do not press all others together
#: From dark blue over gray, at 0, to yellow: lightness grows all the way, so that it is read in gray print, too.
_COLORS = "cividis"

Pair = tuple[str, str]


@styled()
def draw_cosines(view: View) -> Picture:
    """Return a panel for each two tasks: down are methods, across is training, the color is the mean cosine.

    Raises:
        NotDrawnError: no run has logged cosines.
    """
    found = _values(view)
    rows = [row for row in view.rows if any((row.name, pair) in found for pair in _pairs(view))]
    if not rows:
        raise NotDrawnError(
            "no run has logged cosines between task gradients: weightings that need only losses do not, unless "
            "trainer.log_gradients_every is set"
        )
    means = {
        pair: fmean(_mean(found[row.name, pair]) for row in rows if (row.name, pair) in found)
        for pair in _pairs(view)
        if any((row.name, pair) in found for row in rows)
    }
    pairs = sorted(means, key=lambda pair: means[pair])[:_MOST_PANELS]
    columns = min(len(pairs), _COLUMNS)
    lines = -(-len(pairs) // columns)
    figure = new_figure(COLUMN if columns == 1 else PAGE, lines * (0.5 + 0.13 * len(rows)) + 0.6)
    grid = figure.add_gridspec(lines + 1, columns, height_ratios=[*[0.5 + 0.13 * len(rows)] * lines, 0.1])
    sizes = sorted(abs(value) for values in found.values() for value in values if not isnan(value))
    reach = sizes[int(_INSIDE * (len(sizes) - 1))] or 1.0
    last = max(step for row in rows for step in _steps(view, row))
    for place, pair in enumerate(pairs):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        _draw_panel(view, axes, rows, [found.get((row.name, pair), [nan] * _BINS) for row in rows], reach, last)
        axes.set_title(" and ".join(pair))
        if place % columns:
            axes.set_yticklabels([])
    _draw_scale(figure.add_subplot(grid[lines, :]), reach)
    arrange(figure)
    sentences = [
        "Mean over the runs and over a part of training. Below 0, where it is blue and dark, the gradients of two "
        "tasks point against each other; the number at the right is the mean over training. At most 2 % of the "
        "values are beyond the ends of the scale.",
    ]
    if without := [view.look(row).label for row in view.rows if row not in rows]:
        sentences.append(f"Without cosines, which they do not compute: {listed(without)}.")
    if len(pairs) < len(means):
        sentences.append(f"Of {len(means)} pairs of tasks those {len(pairs)} with the lowest cosines are shown.")
    return Picture("gradient-cosines", "Cosines between task gradients over training", " ".join(sentences), figure)


def _pairs(view: View) -> list[Pair]:
    records = [run.record for row in view.rows for run in row.group.runs]
    return list(dict.fromkeys(pair for record in records for pair in combinations(record.config.get("tasks", {}), 2)))


def _values(view: View) -> dict[tuple[str, Pair], list[float]]:
    """Return the mean cosine in each part of training, NaN where there is none, by method and pair of tasks."""
    last = max((step for row in view.rows for step in _steps(view, row)), default=0)
    found = {}
    for row in view.rows:
        for pair in _pairs(view):
            runs = view.curves.values(row, cosine_tag(*pair))
            bins: list[list[float]] = [[] for _ in range(_BINS)]
            for values in runs:
                for step, value in values.items():
                    bins[min(_BINS - 1, (step - 1) * _BINS // last)].append(value)
            if runs:
                found[row.name, pair] = [fmean(values) if values else nan for values in bins]
    return found


def _steps(view: View, row: Row) -> list[int]:
    tags = [tag for tag in view.curves.tags(row) if tag.startswith("grad_cosine/")]
    return [step for tag in tags for values in view.curves.values(row, tag) for step in values]


def _mean(values: Sequence[float]) -> float:
    return fmean(value for value in values if not isnan(value))


def _draw_panel(
    view: View, axes: Any, rows: Sequence[Row], cells: Sequence[Sequence[float]], reach: float, last: int
) -> None:
    import numpy

    axes.imshow(
        numpy.ma.masked_invalid(numpy.array(cells)), cmap=_COLORS, vmin=-reach, vmax=reach, aspect="auto",
        interpolation="none", extent=(0, last, len(rows) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [view.look(row).label for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("step")
    for place, values in enumerate(cells):
        if not all(map(isnan, values)):
            axes.annotate(
                signed(_mean(values)), (last, place), (3, 0), textcoords="offset points", va="center_baseline",
                fontsize=SMALL - 1, annotation_clip=False,
            )  # fmt: skip


def _draw_scale(axes: Any, reach: float) -> None:
    import numpy

    axes.imshow(
        numpy.linspace(-reach, reach, 64)[None, :], cmap=_COLORS, vmin=-reach, vmax=reach, aspect="auto",
        interpolation="none", extent=(-reach, reach, 0, 1),
    )  # fmt: skip
    axes.set_yticks([])
    axes.set_xlabel("cosine between the gradients of two tasks")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
