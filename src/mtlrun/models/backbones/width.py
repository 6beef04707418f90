"""The width factor of backbones, which makes baselines as large as a multi-task model."""

from collections.abc import Sequence


def widened(sizes: Sequence[int], width: float) -> list[int]:
    """Return numbers of channels times `width`, rounded, at least 1."""
    return [max(round(size * width), 1) for size in sizes]
