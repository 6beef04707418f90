"""Numbers that probably stand for an empty cell, such as -999 among temperatures."""

from collections.abc import Iterable

import numpy

from mtlrun.datasets.tables.reading.advice import missing_entries, override
from mtlrun.datasets.tables.reading.columns import Columns

# With fewer different numbers beside it, a far one may be a code like the others.
_FEWEST_OTHERS = 10
_NINES = [float("9" * digits) for digits in range(1, 7)]
#: What people and programs write for a number that they do not have.
_FILLERS = numpy.array([-1.0, *_NINES, *(-number for number in _NINES)])
_SHOWN = 10


def doubt_fillers(table: Columns, columns: Iterable[str]) -> list[str]:
    """Return a line on the columns of numbers that hold one of the usual fillers, far from all of their others.

    It must be there more than once, and farther from the nearest other number than these are from each other.
    """
    found = {column: filler for column in columns if (filler := _find(table.cells[column].numbers)) is not None}
    if not found:
        return []
    shown = list(found.items())[:_SHOWN]
    listing = "; ".join(
        f"{column} ({value:g} in {count:,} rows, all others from {low:g} to {high:g})"
        for column, (value, count, low, high) in shown
    )
    more = f"; and {len(found) - _SHOWN} more columns" if len(found) > _SHOWN else ""
    words = dict.fromkeys(f"{value:g}" for value, *_ in found.values())
    missing = override("missing", missing_entries(table.missing_texts, words))
    return [f"numbers that may stand for empty cells: {listing}{more}; if they do: {missing}"]


def _find(numbers: numpy.ndarray) -> tuple[float, int, float, float] | None:
    """Return the filler in a column, in how many rows it is, and the range of the other numbers; None for none."""
    known = numbers[numpy.isfinite(numbers)]
    if len(known) == 0:
        return None
    for end in (known.min(), known.max()):
        if end not in _FILLERS:
            continue
        others = known[known != end]
        count = len(known) - len(others)
        if count < 2 or len(others) == 0:
            continue
        low, high = others.min(), others.max()
        if min(abs(end - low), abs(end - high)) > high - low and len(numpy.unique(others)) >= _FEWEST_OTHERS:
            return float(end), count, float(low), float(high)
    return None
