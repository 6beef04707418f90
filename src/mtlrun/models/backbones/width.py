"""The width factor of backbones, which makes baselines as large as a multi-task model."""

from collections.abc import Sequence
from math import isfinite


def widened(sizes: Sequence[int], width: float) -> list[int]:
    """Return numbers of channels times `width`, rounded, at least 1; ValueError unless `width` is finite and > 0."""
    if not (width > 0 and isfinite(width)):
        raise ValueError(f"width must be a finite number > 0, found {width}")
    return [max(round(size * width), 1) for size in sizes]
