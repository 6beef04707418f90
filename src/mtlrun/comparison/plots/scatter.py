"""The picture of one task against another: every method, its runs, and the methods that no other one dominates."""

from dataclasses import dataclass
from itertools import combinations
from math import isfinite, isnan
from statistics import fmean
from typing import Any

from mtlrun.comparison.columns import Column
from mtlrun.comparison.pareto import non_dominated
from mtlrun.comparison.plots.labels import Label, place_labels
from mtlrun.comparison.plots.picture import TIP, NotDrawnError, Picture
from mtlrun.comparison.plots.style import GRAY, INK, arrange, panel_grid, styled
from mtlrun.comparison.plots.view import View, bounds_of, count, listed
from mtlrun.comparison.table import Row
from mtlrun.records.display import ARROWS, format_value

_MOST_PANELS = 6
_KEPT = 3  # so many of the best methods have their true places, however far they are from the others

Point = tuple[float, float]


@styled()
def draw_scatter(view: View) -> Picture:
    """Return a panel for each two tasks, with a marker for the mean of each method and a dot for each of its runs.

    Raises:
        NotDrawnError: there are fewer than two tasks, or fewer than two methods with results of two tasks.
    """
    columns = view.table.main_columns()
    pairs = list(combinations(columns, 2))
    if not pairs:
        raise NotDrawnError(f"it needs two tasks, found {count(len(columns), 'task')}")
    panels = [panel for one, other in pairs if len((panel := _Panel(view, one, other)).rows) > 1][:_MOST_PANELS]
    if not panels:
        raise NotDrawnError("fewer than two methods have results of two tasks")
    figure, every_axes = panel_grid(len(panels), height=3.2)
    with_baseline = [panel.draw(axes) for panel, axes in zip(panels, every_axes, strict=True)]
    arrange(figure)
    unnamed: dict[str, None] = {}
    for panel, axes in zip(panels, every_axes, strict=True):
        unnamed |= dict.fromkeys(place_labels(axes, panel.labels(), panel.marks(), panel.lines()))
    sentences = [
        "Each marker is the mean of a method, the dots tied to some are their runs; better is up and to the right.",
        "The line goes through the methods that no other one dominates: none is as good in both tasks and better in "
        "one of them, by the means.",
    ]
    if any(with_baseline):
        sentences.append("Dashed lines: single-task networks.")
    if far := [text for panel in panels for text in panel.far_out()]:
        sentences.append(f"Triangles at an edge are methods beyond it: {'; '.join(far)}.")
    if unnamed:
        sentences.append(f"There is no room for the names of {listed(list(unnamed))}.")
    if len(panels) < len(pairs):
        sentences.append(f"{len(panels)} of {len(pairs)} pairs of tasks are shown.")
    return Picture("task-against-task", "Task against task", " ".join(sentences), figure)


@dataclass
class _Panel:
    """Two tasks and the methods that have results of both."""

    view: View
    one: Column
    other: Column

    def __post_init__(self) -> None:
        columns = self.one, self.other
        self.rows = [row for row in self.view.rows if not any(isnan(row.mean(column)) for column in columns)]
        self.means = [(row.mean(self.one), row.mean(self.other)) for row in self.rows]
        self.runs = {row.name: self._runs(row) for row in self.rows if self.view.look(row).stands_out}
        points = [*self.means, *(point for of_row in self.runs.values() for point in of_row)]
        kept = [point for row in self.rows[:_KEPT] for point in self.runs.get(row.name, [])]
        self.bounds = [
            (min([low, *(point[axis] for point in kept)]), max([high, *(point[axis] for point in kept)]))
            for axis in (0, 1)
            if points
            for low, high in [bounds_of([point[axis] for point in points])]
        ]
        self.best = non_dominated(self.means, [self.one.direction, self.other.direction])

    def draw(self, axes: Any) -> bool:
        """Draw all but the names; return whether there are lines of single-task networks."""
        for row, mean in zip(self.rows, self.means, strict=True):
            for point in self.runs.get(row.name, []):
                ends = _coordinates([self._inside(mean), self._inside(point)])
                axes.plot(*ends, "-", linewidth=0.4, color=self.view.look(row).color, alpha=0.7)
                if self._inside(point) == point:
                    axes.plot(*point, ".", markersize=2.5, color=self.view.look(row).color)
            self._draw_marker(axes, row, mean)
        (front,) = axes.plot(*_coordinates(self._front()), "-", color=INK, linewidth=0.7, zorder=1.5)
        front.set_gid(f"{TIP}methods that no other one dominates")
        for index, (column, invert) in enumerate(((self.one, axes.invert_xaxis), (self.other, axes.invert_yaxis))):
            low, high = self.bounds[index]
            margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
            (axes.set_ylim if index else axes.set_xlim)(low - margin, high + margin)
            (axes.set_ylabel if index else axes.set_xlabel)(f"{column.title} {ARROWS[column.direction]}")
            if column.direction == "min":
                invert()
        lines = [(axes.axvline, self._single_task(self.one), 0), (axes.axhline, self._single_task(self.other), 1)]
        shown = [(draw, value) for draw, value, axis in lines if self.bounds[axis][0] <= value <= self.bounds[axis][1]]
        for draw, value in shown:
            draw(value, color=GRAY, linewidth=0.8, dashes=(4, 2), zorder=1)
        return bool(shown)

    def marks(self) -> list[tuple[float, float, float]]:
        """Return where the markers and dots are, with their radius in points."""
        dots = [point for points in self.runs.values() for point in points if self._inside(point) == point]
        return [(*self._inside(point), 2.8) for point in self.means] + [(*point, 1.3) for point in dots]

    def lines(self) -> list[list[Point]]:
        """Return the corners of the lines that are drawn: the front, and the single-task networks."""
        (left, right), (bottom, top) = self.bounds
        x, y = self._single_task(self.one), self._single_task(self.other)
        return [self._front(), [(x, bottom), (x, top)], [(left, y), (right, y)]]

    def labels(self) -> list[Label]:
        """Return the names, the most important first."""
        found = []
        for row, point, best in zip(self.rows, self.means, self.best, strict=True):
            look = self.view.look(row)
            needed = look.stands_out or best or self._inside(point) != point
            found.append(Label(look.label, *self._inside(point), needed, faint=not (look.stands_out or best)))
        return sorted(found, key=lambda label: not label.needed)

    def far_out(self) -> list[str]:
        """Return the methods beyond an edge, with their values."""
        return [self._describe(row) for row, at in zip(self.rows, self.means, strict=True) if self._inside(at) != at]

    def _draw_marker(self, axes: Any, row: Row, point: Point) -> None:
        look, at = self.view.look(row), self._inside(point)
        signs = [(there > here) - (there < here) for there, here in zip(point, at, strict=True)]
        turn = [-1 if column.direction == "min" else 1 for column in (self.one, self.other)]
        marker = {(1, 0): ">", (-1, 0): "<", (0, 1): "^", (0, -1): "v"}.get(
            (signs[0] * turn[0], 0 if signs[0] else signs[1] * turn[1]), look.marker
        )
        size = (7.5 if marker == "*" else 5.0) if look.stands_out else 4.0
        order = 4 if look.stands_out else 3
        (line,) = axes.plot(*at, marker, color=look.color, markersize=size, zorder=order, clip_on=False)
        line.set_gid(f"{TIP}{self._describe(row)}")

    def _front(self) -> list[Point]:
        """Return the edge of what the best methods dominate, in steps."""
        worse = [min if column.direction == "max" else max for column in (self.one, self.other)]
        corners: list[Point] = []
        for point in sorted(point for point, best in zip(self.means, self.best, strict=True) if best):
            if corners:
                corners.append((worse[0](corners[-1][0], point[0]), worse[1](corners[-1][1], point[1])))
            corners.append(point)
        return corners

    def _describe(self, row: Row) -> str:
        values = [f"{column.title} {format_value(row.mean(column))}" for column in (self.one, self.other)]
        return f"{self.view.look(row).label} ({', '.join(values)})"

    def _runs(self, row: Row) -> list[Point]:
        first, second = row.cells[self.one.key].values, row.cells[self.other.key].values
        pairs = [(value, second[repetition]) for repetition, value in first.items() if repetition in second]
        return [(x, y) for x, y in pairs if isfinite(x) and isfinite(y)]

    def _inside(self, point: Point) -> Point:
        """Return the nearest point inside the bounds."""
        (left, right), (bottom, top) = self.bounds
        return min(max(point[0], left), right), min(max(point[1], bottom), top)

    def _single_task(self, column: Column) -> float:
        """Return the mean of the baseline of the first method that has one; NaN without any."""
        for row in self.rows:
            found = [
                baseline.mean(column, row.group.repetitions()[key].fold) for key, baseline in row.baselines.items()
            ]
            finite = [value for value in found if isfinite(value)]
            if finite:
                return fmean(finite)
        return float("nan")


def _coordinates(points: list[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
