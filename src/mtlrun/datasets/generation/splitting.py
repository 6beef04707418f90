"""Frozen splits of what a source delivers in one piece."""

from collections.abc import Sequence

import numpy


def split_by_class(labels: Sequence[int] | numpy.ndarray, shares: Sequence[float], seed: int) -> list[numpy.ndarray]:
    """Cut samples into parts in which each class has the same share, up to rounding.

    A function of its arguments alone, and of NumPy's PCG64, which does not change between versions.

    Args:
        labels: class of each sample, [num_samples]; all equal for parts that are drawn without regard to classes.
        shares: of all parts but the last, which takes what is left.
        seed: 0 or more.

    Returns:
        The samples of each part as sorted indices, len(shares) + 1 arrays.
    """
    random = numpy.random.default_rng(seed)
    classes = numpy.asarray(labels)
    parts: list[list[numpy.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for value in numpy.unique(classes):
        members = random.permutation(numpy.flatnonzero(classes == value))
        counts = [round(share * len(members)) for share in shares]
        for part, chosen in zip(parts, numpy.split(members, numpy.cumsum(counts)), strict=True):
            part.append(chosen)
    return [numpy.sort(numpy.concatenate(part)) if part else numpy.empty(0, numpy.int64) for part in parts]
