"""Seeds made from seeds."""

import numpy


def mix(*numbers: int) -> int:
    """Return one seed made from several numbers; how many they are counts too, since NumPy pads with zeros."""
    return int(numpy.random.SeedSequence([len(numbers), *numbers]).generate_state(1, numpy.uint64)[0] >> 1)
