"""Names beside points, where there is room for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

from mtlrun.comparison.plots.style import FAINT, GRAY, INK, SMALL

if TYPE_CHECKING:
    from matplotlib.transforms import Bbox

_DIRECTIONS = (0, 4, 2, 6, 1, 7, 3, 5)  # eighths of a turn: right, left, above, below, then the corners
_NEAR, _FAR = (5.0,), (5.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0)  # points from the point
_LEADER = 8.0  # from here on a line leads from the name to its point


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


def place_labels(axes: Any, labels: Sequence[Label], avoid: Sequence[tuple[float, float, float]]) -> list[str]:
    """Write names beside their points, none over another or over what is to be avoided; return those without room.

    The axes must have their final place and limits.

    Args:
        axes: of Matplotlib.
        labels: the most important first.
        avoid: x, y and radius in points of what no name may cover.
    """
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    taken = [_around(axes.transData.transform((x, y)), radius) for x, y, radius in avoid]
    without = []
    for label in labels:
        point = axes.transData.transform((label.x, label.y))
        text = axes.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", fontsize=SMALL - 0.5,
            color=INK, alpha=FAINT if label.faint else 1, ha="center", va="center",
        )  # fmt: skip
        size = text.get_window_extent(renderer)
        for radius in _FAR if label.needed else _NEAR:
            offset = _find_room(Bbox, point, (size.width, size.height), radius, inside, taken)
            if offset is not None:
                break
        else:
            text.remove()
            without.append(label.text)
            continue
        text.set_position(offset)
        center = point[0] + offset[0], point[1] + offset[1]
        taken.append(Bbox.from_bounds(center[0] - size.width / 2, center[1] - size.height / 2, size.width, size.height))
        if radius >= _LEADER:
            axes.annotate(
                "", (label.x, label.y), offset, textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GRAY, "linewidth": 0.5, "shrinkA": size.height / 2,
                            "shrinkB": 2.5},
            )  # fmt: skip
    return without


def _find_room(
    bbox: "type[Bbox]",
    point: tuple[float, float],
    size: tuple[float, float],
    radius: float,
    inside: "Bbox",
    taken: "Sequence[Bbox]",
) -> tuple[float, float] | None:
    """Return where the center of a text goes from its point; None if each place at this distance is taken."""
    width, height = size
    for eighth in _DIRECTIONS:
        across, up = round(cos(eighth * pi / 4), 9), round(sin(eighth * pi / 4), 9)
        offset = across * radius + (across > 0) * width / 2 - (across < 0) * width / 2, up * (radius + height / 2)
        left, bottom = point[0] + offset[0] - width / 2, point[1] + offset[1] - height / 2
        box = bbox.from_bounds(left, bottom, width, height)
        if (box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1) and not any(
            box.overlaps(other) for other in taken
        ):
            return offset
    return None


def _around(point: tuple[float, float], reach: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(point[0] - reach, point[1] - reach, point[0] + reach, point[1] + reach)
