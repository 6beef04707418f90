"""Cells that stand for an empty one: the same for texts and numbers, CSV and Parquet."""

from collections.abc import Iterable, Sequence

import numpy

from mtlrun.datasets.tables.reading.notation import to_numbers

#: The default of `dataset.missing`.
MISSING = ("", "NA", "NaN", "nan", "null")

# What people write for an empty cell, in lower case.
_USUAL = frozenset((
    "", "na", "n/a", "n.a.", "n.a", "nan", "nat", "none", "null", "nil", "-", "--", "---", ".", "..", "?", "??",
    "unknown", "unk", "missing", "empty", "undefined", "inf", "-inf", "+inf", "infinity", "-infinity", "#n/a", "#na",
    "#value!",
    "#div/0!", "#ref!", "#num!", "#name?", "#null!", "<na>", "(null)", r"\n", "n/d", "nd", "k.a.", "k. a.",
))  # fmt: skip


class Missing:
    """The entries of `dataset.missing`. The empty text is always one of them.

    A cell is missing if it is equal to an entry, or if both are numbers of the same value: -999 stands for -999.0 too.

    Args:
        entries: texts, or numbers.
    """

    def __init__(self, entries: Iterable[str | float]) -> None:
        texts = [str(entry).strip() for entry in entries]
        self.texts = frozenset(["", *texts])
        values = to_numbers(texts)
        self._values = numpy.unique(values[~numpy.isnan(values)])

    def among(self, labels: Sequence[str]) -> numpy.ndarray:
        """Return a mask of the texts that stand for an empty cell, bool [num_labels]."""
        mask = numpy.array([label in self.texts for label in labels], dtype=bool)
        if len(self._values):
            mask |= numpy.isin(to_numbers(labels), self._values)
        return mask

    def clear(self, numbers: numpy.ndarray) -> None:
        """Make the numbers that stand for an empty cell NaN, in place."""
        for value in self._values:
            numbers[numbers == value] = numpy.nan


def is_usual(text: str) -> bool:
    """Return True if a text is one that often stands for an empty cell."""
    return text.strip().lower() in _USUAL
