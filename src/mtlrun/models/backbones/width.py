"""One factor for all sizes of a network: baselines that are as large as a multi-task model."""

from collections.abc import Sequence
from math import isfinite


def widened(sizes: Sequence[int], width: float) -> list[int]:
    """Return the sizes times `width`, rounded, at least 1; ValueError unless `width` is a finite number > 0."""
    if not (width > 0 and isfinite(width)):
        raise ValueError(f"width must be a finite number > 0, found {width}")
    return [max(round(size * width), 1) for size in sizes]
