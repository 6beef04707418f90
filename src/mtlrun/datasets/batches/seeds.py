"""Seeds derived from other seeds."""

import numpy


def derive_seed(*numbers: int) -> int:
    """Return a seed derived from several numbers and from their count, since NumPy pads with zeros."""
    return int(numpy.random.SeedSequence([len(numbers), *numbers]).generate_state(1, numpy.uint64)[0] >> 1)
