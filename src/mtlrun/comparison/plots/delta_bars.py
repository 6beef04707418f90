"""The picture of the change against single-task networks: a bar for each method, with its interval."""

from math import isfinite
from typing import Any

from mtlrun.comparison.columns import DELTA_P
from mtlrun.comparison.plots.picture import TIP, NotDrawnError, Picture
from mtlrun.comparison.plots.style import COLUMN, INK, SMALL, arrange, new_figure, styled
from mtlrun.comparison.plots.view import View, bounds_of, listed, signed
from mtlrun.comparison.significance import test_to_train, tested_values
from mtlrun.comparison.statistics.intervals import LEVEL, t_interval
from mtlrun.comparison.table import Row


@styled()
def draw_delta_bars(view: View) -> Picture:
    """Return horizontal bars of Delta_p, the best on top, with confidence intervals and a dot for each run.

    Raises:
        NotDrawnError: no method has a single-task baseline.
    """
    rows = [row for row in view.rows if DELTA_P.key in row.cells and isfinite(row.mean(DELTA_P))]
    if not any(column.key == DELTA_P.key for column in view.table.columns) or not rows:
        reasons = [note for note in view.table.notes if note.startswith("no Δm and Δp")]
        raise NotDrawnError("; ".join(reasons) or "no method has a single-task baseline to be held against")
    rows.sort(key=lambda row: -row.mean(DELTA_P))
    figure = new_figure(COLUMN, 0.65 + 0.155 * len(rows))
    axes = figure.add_subplot()
    low, high = _limits(rows)
    axes.set_xlim(low, high)
    far = [row for row in rows if not low <= row.mean(DELTA_P) <= high]
    for place, row in enumerate(rows):
        _draw_bar(view, axes, row, place, whiskers=row not in far)
    for row in far:
        left = row.mean(DELTA_P) < low
        text = f"◂ {signed(row.mean(DELTA_P))} %" if left else f"{signed(row.mean(DELTA_P))} % ▸"
        axes.text(low if left else high, rows.index(row), text, ha="left" if left else "right", va="center",
                  fontsize=SMALL)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [view.look(row).label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Δp: change against single-task networks, % ↑", loc="right")
    arrange(figure)
    folded = any(row.group.num_folds is not None for row in rows)
    over, dots = ("folds", "folds, each the mean over its seeds") if folded else ("runs", "single runs")
    sentences = [
        "Mean over the tasks of the mean relative change of their metrics; to the right of 0 is better than "
        "single-task networks.",
        f"Whiskers: {LEVEL:.0%} confidence intervals over the {over} by Student's t; dots: {dots}. The mean of the "
        "single-task networks is taken as known.",
    ]
    if far:
        sentences.append("A number stands where a bar goes on beyond the edge.")
    if without := [row for row in rows if _interval(row) is None]:
        sentences.append(
            f"Without an interval, from one {over[:-1]}: {listed([view.look(row).label for row in without])}."
        )
    if absent := [view.look(row).label for row in view.rows if row not in rows]:
        sentences.append(f"Without a value: {listed(absent)}.")
    return Picture("delta-bars", "Change against single-task networks", " ".join(sentences), figure)


def _limits(rows: list[Row]) -> tuple[float, float]:
    """Return the ends of the axis: 0, all bars but those far out, and their intervals are inside."""
    shown = [0.0, *bounds_of([row.mean(DELTA_P) for row in rows])]
    added, left = list(rows), list(rows)
    while added:  # a bar that the interval of another has made room for is inside, too
        added = [row for row in left if min(shown) <= row.mean(DELTA_P) <= max(shown)]
        left = [row for row in left if row not in added]
        shown += [value for row in added for value in (*(_interval(row) or ()), *_values(row))]
    margin = 0.03 * (max(shown) - min(shown)) or 1.0
    return min(shown) - margin, max(shown) + margin


def _values(row: Row) -> list[float]:
    return [value for value in row.cells[DELTA_P.key].samples or () if isfinite(value)]


def _interval(row: Row) -> tuple[float, float] | None:
    """Return the interval of the table, which a long table has none of."""
    values = list(tested_values(row, DELTA_P).values())
    return row.cells[DELTA_P.key].interval or t_interval(values, test_to_train=test_to_train(row.group))


def _draw_bar(view: View, axes: Any, row: Row, place: int, *, whiskers: bool) -> None:
    """Draw the bar of a method, with its runs and its interval or without."""
    cell, look = row.cells[DELTA_P.key], view.look(row)
    values, interval = _values(row), _interval(row)
    (bar,) = axes.barh(place, cell.mean, height=0.62, color=look.color, alpha=0.55, linewidth=0)
    text = f"{look.label}: {signed(cell.mean)} %"
    if whiskers:
        axes.plot(values, [place] * len(values), ".", color=INK, markersize=2.2, alpha=0.6)
    if interval is not None:
        low, high = interval
        if whiskers:
            axes.plot([low, high], [place, place], "|-", color=INK, linewidth=0.8, markersize=SMALL / 2)
        text += f", {LEVEL:.0%} interval {signed(low)} to {signed(high)} %"
    bar.set_gid(f"{TIP}{text}")
