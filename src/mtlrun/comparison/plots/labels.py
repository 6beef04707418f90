"""Names beside points, where there is room for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, hypot, isnan, pi, sin
from typing import Any

from mtlrun.comparison.plots.style import FAINT, GRAY, INK, SMALL

_DIRECTIONS = (0, 4, 2, 6, 1, 7, 3, 5)  # eighths of a turn: right, left, above, below, then the corners
_NEAR, _FAR = (5.0, 11.0), (5.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0)  # points from the point
_CLOSE = 4.0  # points between two points of a line
_LEADER = 8.0  # from here on a line leads from the name to its point

Point = tuple[float, float]
#: Left, bottom, right and top, in points.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Label:
    """A name that belongs to a point.

    Args:
        text: the name.
        x, y: of the point.
        needed: whether it may be far from its point; others are left out instead.
        faint: whether it is less important than others.
    """

    text: str
    x: float
    y: float
    needed: bool
    faint: bool


def place_labels(
    axes: Any,
    labels: Sequence[Label],
    marks: Sequence[tuple[float, float, float]],
    lines: Sequence[Sequence[Point]] = (),
) -> list[str]:
    """Write names beside their points, none over another or over a mark; return those without room.

    The axes must have their final place and limits.

    Args:
        axes: of Matplotlib.
        labels: the most important first.
        marks: x, y and radius in points of what no name may cover.
        lines: corners of lines that names do not cross if they can stay near; one with a NaN is not there.
    """
    renderer = axes.figure.canvas.get_renderer()
    inside: Box = tuple(axes.get_window_extent(renderer).extents.tolist())
    taken = [_around(axes.transData.transform((x, y)).tolist(), radius) for x, y, radius in marks]
    crossed = [_around(point, 0.5) for corners in lines for point in _along(axes.transData.transform(corners).tolist())]
    without = []
    for label in labels:
        point = axes.transData.transform((label.x, label.y)).tolist()
        text = axes.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", fontsize=SMALL - 0.5,
            color=INK, alpha=FAINT if label.faint else 1, ha="center", va="center",
        )  # fmt: skip
        size = text.get_window_extent(renderer)
        radii = _FAR if label.needed else _NEAR
        tries = [(radius, crossed) for radius in _NEAR] + [(radius, []) for radius in radii]
        for radius, lines_there in tries:
            offset = _find_room(point, size.width, size.height, radius, inside, [*taken, *lines_there])
            if offset is not None:
                break
        else:
            text.remove()
            without.append(label.text)
            continue
        text.set_position(offset)
        taken.append(_box(point, offset, size.width, size.height))
        if radius >= _LEADER:
            axes.annotate(
                "", (label.x, label.y), offset, textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GRAY, "linewidth": 0.5, "shrinkA": size.height / 2,
                            "shrinkB": 2.5},
            )  # fmt: skip
    return without


def _find_room(
    point: Point, width: float, height: float, radius: float, inside: Box, taken: Sequence[Box]
) -> Point | None:
    """Return where the center of a text goes from its point; None if each place at this distance is taken."""
    for eighth in _DIRECTIONS:
        across, up = round(cos(eighth * pi / 4), 9), round(sin(eighth * pi / 4), 9)
        side = (across > 0) - (across < 0)
        offset = across * radius + side * width / 2, up * (radius + height / 2)
        box = _box(point, offset, width, height)
        if _holds(inside, box) and not any(_overlap(box, other) for other in taken):
            return offset
    return None


def _box(point: Point, offset: Point, width: float, height: float) -> Box:
    x, y = point[0] + offset[0], point[1] + offset[1]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _holds(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _along(corners: Any) -> list[Point]:
    """Return points on a line, so close that no name fits between two of them."""
    found = []
    for (x, y), (to_x, to_y) in pairwise(corners):
        length = hypot(to_x - x, to_y - y)
        parts = 0 if isnan(length) else int(length / _CLOSE) + 1
        found += [(x + (to_x - x) * part / parts, y + (to_y - y) * part / parts) for part in range(parts)]
    return found


def _around(point: Point, reach: float) -> Box:
    return point[0] - reach, point[1] - reach, point[0] + reach, point[1] + reach
