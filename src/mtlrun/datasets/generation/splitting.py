"""Fixed random splits of datasets that have no official ones."""

import math
from collections.abc import Sequence

import numpy


def split_by_class(labels: Sequence[int] | numpy.ndarray, fractions: Sequence[float], seed: int) -> list[numpy.ndarray]:
    """Split samples at random into parts, stratified by class.

    The result depends only on the arguments and on NumPy's PCG64, which does not change between versions.

    Args:
        labels: class of each sample, [num_samples]; all equal to split without regard to classes.
        fractions: of all parts but the last, which gets the remaining samples.
        seed: 0 or more.

    Returns:
        The samples of each part as sorted indices, len(fractions) + 1 arrays.
    """
    random = numpy.random.default_rng(seed)
    classes = numpy.asarray(labels)
    parts: list[list[numpy.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for value in numpy.unique(classes):
        members = random.permutation(numpy.flatnonzero(classes == value))
        counts = [round(fraction * len(members)) for fraction in fractions]
        for part, chosen in zip(parts, numpy.split(members, numpy.cumsum(counts)), strict=True):
            part.append(chosen)
    return [numpy.sort(numpy.concatenate(part)) if part else numpy.empty(0, numpy.int64) for part in parts]


def stratified_split(labels: numpy.ndarray, fraction: float, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Split samples in two, with each class in equal proportion, as scikit-learn's `train_test_split` does.

    The same indices in the same order as of `train_test_split(numpy.arange(len(labels)), test_size=fraction,
    stratify=labels, random_state=seed)`. A function of its arguments alone, and of NumPy's RandomState, which
    does not change between versions.

    Args:
        labels: class of each sample, [num_samples].
        fraction: of the second part, in (0, 1).
        seed: 0 or more.

    Returns:
        The samples of the first part and of the second, in random order.
    """
    random = numpy.random.RandomState(seed)
    _, positions, counts = numpy.unique(labels, return_inverse=True, return_counts=True)
    num_second = math.ceil(fraction * len(labels))
    num_first = len(labels) - num_second
    from_first = _apportion(counts, num_first, random)
    from_second = _apportion(counts - from_first, num_second, random)
    first, second = [], []
    members = numpy.split(numpy.argsort(positions, kind="stable"), numpy.cumsum(counts)[:-1])
    for samples, num_samples, end in zip(members, from_first, from_first + from_second, strict=True):
        shuffled = samples[random.permutation(len(samples))]
        first.append(shuffled[:num_samples])
        second.append(shuffled[num_samples:end])
    return random.permutation(numpy.concatenate(first)), random.permutation(numpy.concatenate(second))


def _apportion(counts: numpy.ndarray, total: int, random: numpy.random.RandomState) -> numpy.ndarray:
    """Return how many of `total` samples each class provides, by largest remainder; ties are broken at random."""
    quotas = counts / counts.sum() * total
    seats: numpy.ndarray = numpy.floor(quotas).astype(int)
    missing = int(total - seats.sum())
    remainders = quotas - seats
    for value in numpy.unique(remainders)[::-1]:
        if missing == 0:
            break
        (tied,) = numpy.where(remainders == value)
        chosen = random.choice(tied, size=min(len(tied), missing), replace=False)
        seats[chosen] += 1
        missing -= len(chosen)
    return seats
