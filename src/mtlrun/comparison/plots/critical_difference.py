"""The diagram of average ranks with Nemenyi's critical difference.

Source: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 2006), figure 1; what a block is
here, see `mtlrun.comparison.statistics.friedman`.
"""

from typing import Any

from mtlrun.comparison.columns import Column
from mtlrun.comparison.plots.picture import TIP, NotDrawnError, Picture
from mtlrun.comparison.plots.style import COLUMN, FAINT, INK, SMALL, new_figure, styled
from mtlrun.comparison.plots.view import View, count, listed
from mtlrun.comparison.significance import tested_values
from mtlrun.comparison.statistics.friedman import RankTest, make_blocks, rank_test
from mtlrun.comparison.table import Row

# Inches: between two names, between two bars, from the top to the axis, and the width of a character.
_LINE, _BAR, _AXIS, _CHARACTER = 0.135, 0.06, 0.5, 0.058


@styled()
def draw_critical_difference(view: View) -> Picture:
    """Return average ranks on an axis, the best on the left; a bar connects methods that are not told apart.

    Raises:
        NotDrawnError: there are fewer than three methods, or fewer than two blocks that these share.
    """
    columns = view.table.main_columns()
    rows = [row for row in view.rows if columns and all(tested_values(row, column) for column in columns)]
    left_out = [row for row in view.rows if row not in rows]
    if len(rows) < 3:
        raise NotDrawnError(f"it needs three methods with a result in each task, found {len(rows)}")
    blocks = make_blocks([([tested_values(row, column) for row in rows], column.direction) for column in columns])
    test = rank_test(blocks)
    if test is None:
        raise NotDrawnError(f"the methods have {count(len(blocks), 'pair')} of a task and a repetition in common")
    figure = _draw(view, rows, test)
    sentences = [
        f"Average rank of each method over {test.num_blocks} blocks (a block is one task in one repetition, by "
        f"{view.table.describe_mains()}); 1 is best. Friedman's test that all are equal: p = {test.p:.2g}.",
        "A bar connects methods whose ranks differ by less than the critical difference (CD) of "
        f"{test.critical_difference:.2f}, Nemenyi's at 5 %: they are not told apart. It holds for new repetitions of "
        "these tasks, and shrinks with the square root of the number of blocks.",
    ]
    if test.critical_difference >= len(rows) - 1:
        needed = int(test.num_blocks * (test.critical_difference / (len(rows) - 1)) ** 2) + 1
        most = len(rows) - 1
        sentences.append(f"Ranks differ by {most} at most: with fewer than {needed} blocks nothing can be told apart.")
    if lacking := _lacking(view, rows, columns):
        sentences.append(f"Repetitions that a method lacks are left out for all: {lacking}.")
    if left_out:
        sentences.append(f"Left out, since they lack results: {listed([view.look(row).label for row in left_out])}.")
    return Picture("critical-difference", "Critical difference of average ranks", " ".join(sentences), figure)


def _lacking(view: View, rows: list[Row], columns: list[Column]) -> str:
    """Return which methods lack how many of the repetitions that others have."""
    values = {row.name: [tested_values(row, column) for column in columns] for row in rows}
    every = {key for of_row in values.values() for of_column in of_row for key in of_column}
    missing = [
        (view.look(row).label, sum(any(key not in of_column for of_column in values[row.name]) for key in every))
        for row in rows
    ]
    return ", ".join(f"{label} ({number})" for label, number in missing if number)


def _draw(view: View, rows: list[Row], test: RankTest) -> Any:
    """Return the figure. Its coordinates are inches from the left and from the top."""
    names = [f"{view.look(row).label}  {rank:.2f}" for row, rank in zip(rows, test.average_ranks, strict=True)]
    side = _CHARACTER * max(map(len, names)) + 0.12
    width = max(COLUMN, 2 * side + 1.5)
    end = max(float(len(rows)), 1 + test.critical_difference)  # so that the bar of the difference has room
    first = _AXIS + 0.12 + _BAR * len(test.groups) + 0.08
    half = -(-len(rows) // 2)
    figure = new_figure(width, first + _LINE * half)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(first + _LINE * half, 0)

    def at(rank: float) -> float:
        return side + (rank - 1) / (end - 1) * (width - 2 * side)

    cd = test.critical_difference
    (line,) = axes.plot([at(1), at(1 + cd)], [0.2, 0.2], "|-", color=INK, linewidth=1, markersize=5)
    line.set_gid(f"{TIP}critical difference: {cd:.2f}")
    axes.text((at(1) + at(1 + cd)) / 2, 0.15, f"CD = {cd:.2f}", ha="center", va="bottom", fontsize=SMALL)
    axes.plot([at(1), at(end)], [_AXIS, _AXIS], color=INK, linewidth=0.8)
    for tick in _ticks(end):
        axes.plot([at(tick)] * 2, [_AXIS - 0.05, _AXIS], color=INK, linewidth=0.8)
        axes.text(at(tick), _AXIS - 0.07, str(tick), ha="center", va="bottom", fontsize=SMALL)
    for place, group in enumerate(test.groups):
        ranks = [test.average_ranks[index] for index in group]
        y = _AXIS + 0.12 + _BAR * place
        (bar,) = axes.plot([at(min(ranks)) - 0.02, at(max(ranks)) + 0.02], [y, y], color=INK, linewidth=2,
                           solid_capstyle="butt")  # fmt: skip
        bar.set_gid(f"{TIP}not told apart: {listed([view.look(rows[index]).label for index in group])}")
    order = sorted(range(len(rows)), key=lambda index: test.average_ranks[index])
    for place, index in enumerate(order):
        left = place < half
        y = first + _LINE * (place if left else len(rows) - 1 - place)
        look, x = view.look(rows[index]), at(test.average_ranks[index])
        edge = side - 0.06 if left else width - side + 0.06
        axes.plot([x, x, edge], [_AXIS, y, y], color=look.color, linewidth=0.9 if look.stands_out else 0.5)
        if look.stands_out:
            axes.plot([x], [_AXIS], look.marker, color=look.color, markersize=4, zorder=3)
        axes.text(edge + (-0.04 if left else 0.04), y, names[index], ha="right" if left else "left",
                  va="center_baseline", fontsize=SMALL, color=INK, alpha=1 if look.stands_out else FAINT)  # fmt: skip
    return figure


def _ticks(end: float) -> list[int]:
    """Return 1 and multiples of a round number, at most about ten."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if end / step <= 10)
    return [1, *(tick for tick in range(step, int(end) + 1, step) if tick > 1)]
