"""The separator of a CSV file: as its key gives it, or found from the first lines."""

import csv
import re
import shlex
from collections.abc import Sequence

from mtlrun.errors import DataError

_CANDIDATES = (",", ";", "\t", "|")
_WORDS = {r"\t": "\t", "tab": "\t", "TAB": "\t"}


def check_separator(separator: str | None) -> str | None:
    r"""Return the separator that a key gives, where `tab` and a backslash with a t are a tab.

    Raises:
        ValueError: it is empty, or a regular expression that is none.
    """
    if separator is None:
        return None
    separator = _WORDS.get(separator, separator)
    try:
        re.compile(separator if len(separator) != 1 else "")
    except re.error as error:
        raise ValueError(f"separator must be a character or a regular expression, found {separator!r}") from error
    if not separator or separator in '"\r\n':
        raise ValueError(f"separator must be a character or a regular expression, found {separator!r}")
    return separator


def find_separator(path: str, lines: Sequence[str], separator: str | None) -> str:
    """Return the separator of a file.

    Args:
        path: of the file.
        lines: its first lines.
        separator: the one that is given; None to find it.

    Raises:
        DataError: the header is one cell with the given separator, and several with another; or there are two
            separators with which each row has as many cells as the header.
    """
    sizes = {candidate: _sizes(lines, candidate) for candidate in _CANDIDATES}
    divides = [candidate for candidate, counts in sizes.items() if counts[0] > 1]
    fits = [candidate for candidate in divides if len(set(sizes[candidate])) == 1]
    if separator is not None:
        if len(separator) == 1 and _sizes(lines, separator)[0] == 1 and fits:
            raise DataError(
                f"{path}: the header is one cell with dataset.separator={separator!r}: {lines[0].strip()!r}; leave "
                f"dataset.separator out, or set {as_override(fits[0])}"
            )
        return separator
    if len(fits) > 1:
        raise DataError(
            f"{path}: cells may be separated by {' or by '.join(map(repr, fits))}; set "
            f"{' or '.join(map(as_override, fits))}"
        )
    if fits:
        return fits[0]
    return max(divides, key=lambda candidate: (candidate == ",", sizes[candidate][0]), default=",")


def as_override(separator: str) -> str:
    """Return what sets a separator on the command line."""
    return "dataset.separator=tab" if separator == "\t" else shlex.quote(f'dataset.separator="{separator}"')


def _sizes(lines: Sequence[str], separator: str) -> list[int]:
    """Return the number of cells of each row that is not empty."""
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return [0]
    header, *others = rows
    if len(lines) >= 20:
        others = others[:-1]  # may go on in the next line
    return [len(header), *(len(row) for row in others if any(cell.strip() for cell in row))]
