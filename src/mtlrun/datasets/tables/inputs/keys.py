"""Keys of vectors: numbers that are the same for the same vectors, by which repeated ones are found quickly."""

import numpy
from numpy.typing import NDArray
from torch import Tensor

Keys = NDArray[numpy.uint64]

_FACTOR = numpy.uint64(0x9E3779B97F4A7C15)  # odd, with bits in no pattern: 2^64 divided by the golden ratio
_SHIFT = numpy.uint64(29)
_BLOCK = 2**13  # rows that fit into a processor's cache


def keys_of(vectors: Tensor) -> Keys:
    """Return a key for each of the vectors [n, size], uint64 [n].

    Different vectors have the same key by chance only, two of them with a probability of about 2^-64. A million vectors
    of 50 numbers take about a second on one core.
    """
    # Adding zero makes -0 and 0, which are equal, the same bits.
    values = (vectors.detach().cpu() + 0).contiguous().numpy()
    words = values.view(numpy.uint32) if values.itemsize % 4 == 0 else values.view(numpy.uint8)
    keys = numpy.zeros(len(values), dtype=numpy.uint64)
    for start in range(0, len(words), _BLOCK):
        key = keys[start : start + _BLOCK]
        for column in words[start : start + _BLOCK].T.astype(numpy.uint64):
            key ^= column + _FACTOR  # for a fixed column each step is one-to-one, so that a difference is never lost
            key *= _FACTOR
            key ^= key >> _SHIFT
    return keys


def count_repeated(keys: Keys, others: Keys) -> int:
    """Return how many of `keys` are among `others`."""
    ordered = numpy.sort(others)  # numpy.isin sorts all of them at once, and stably, which takes several times as long
    places = numpy.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
    return int((ordered[places] == keys).sum())
