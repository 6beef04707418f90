"""Correction of p values where many differences are tested at once."""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected so that any false finding among all has at most the probability that one alone has.

    The smallest of m is multiplied by m, the next by m - 1, and so on, and none becomes smaller than those before it.
    It holds whatever the tests have to do with each other. None, for a test that could not be made, stays and does
    not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal of Statistics 1979).
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, index) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - place) * p))
        corrected[index] = largest
    return corrected
