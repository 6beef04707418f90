"""Pareto dominance between methods, and the hypervolume of what they reach, over several objectives.

Source: Zitzler & Thiele, "Multiobjective Evolutionary Algorithms: A Comparative Case Study and the Strength Pareto
Approach" (IEEE Transactions on Evolutionary Computation 1999).
"""

from collections.abc import Sequence

from mtlrun.comparison.statistics.paired import Direction
from mtlrun.errors import DataError

#: A value per objective.
Point = Sequence[float]


def dominates(first: Point, second: Point, directions: Sequence[Direction]) -> bool:
    """Return True if the first point is nowhere worse and somewhere better; False if a value of either is NaN."""
    one, other = _to_maximize(first, directions), _to_maximize(second, directions)
    return all(left >= right for left, right in zip(one, other, strict=True)) and one != other


def non_dominated(points: Sequence[Point], directions: Sequence[Direction]) -> list[bool]:
    """Return for each point whether no other dominates it; a point with a NaN is no part of the front."""
    return [
        all(value == value for value in point) and not any(dominates(other, point, directions) for other in points)
        for point in points
    ]


def hypervolume(points: Sequence[Point], reference: Point, directions: Sequence[Direction]) -> float:
    """Return the volume that points dominate down to a reference point.

    Points that are not better than the reference in all objectives add nothing, nor do those with a NaN.

    Args:
        points: any number, dominated ones too.
        reference: the point to which volumes extend; volumes of different references cannot be compared.
        directions: of the objectives.

    Raises:
        DataError: there are more than two objectives, and the library moocore is not installed.
    """
    origin = _to_maximize(reference, directions)
    inside = [
        [value - zero for value, zero in zip(_to_maximize(point, directions), origin, strict=True)] for point in points
    ]
    inside = [point for point in inside if all(value > 0 for value in point)]
    if not inside:
        return 0.0
    if len(directions) <= 2:
        return _area([(point[0], point[-1] if len(point) == 2 else 1.0) for point in inside])
    try:
        import moocore
    except ImportError:
        raise DataError(
            f"the hypervolume of {len(directions)} objectives needs the library moocore, which is not installed: "
            "pip install 'mtlrun[pareto]'"
        ) from None
    return float(moocore.hypervolume(inside, ref=[0.0] * len(directions), maximise=True))


def _area(points: Sequence[tuple[float, float]]) -> float:
    """Return the area of the union of the rectangles from (0, 0) to each point."""
    area, height = 0.0, 0.0
    for width, top in sorted(points, reverse=True):
        if top > height:
            area += width * (top - height)
            height = top
    return area


def _to_maximize(point: Point, directions: Sequence[Direction]) -> list[float]:
    return [value if direction == "max" else -value for value, direction in zip(point, directions, strict=True)]
