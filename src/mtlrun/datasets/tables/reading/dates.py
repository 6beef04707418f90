"""Dates and times as people write them, made numbers: days since the beginning of 1970."""

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import product

import numpy
import pandas

_ISO = re.compile(r"\d{4}-\d{1,2}(-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s?(Z|UTC|[+-]\d{2}:?\d{2})?)?)?")
_MONTH = r"[A-Za-z]{3,9}\.?"
_CLOCK = r"(?:[T ,]+\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s?[AaPp][Mm])?)?"
_PATTERNS = [
    _ISO.pattern,
    rf"\d{{4}}([/.])\d{{1,2}}\1\d{{1,2}}{_CLOCK}",
    rf"\d{{1,2}}([/-])\d{{1,2}}\1(?:\d{{4}}|\d{{2}}){_CLOCK}",
    rf"\d{{1,2}}\.\d{{1,2}}\.\d{{4}}{_CLOCK}",
    rf"\d{{2}}\.\d{{2}}\.\d{{2}}{_CLOCK}",
    rf"\d{{1,2}}[. -]+{_MONTH}[ ,-]+(?:\d{{4}}|\d{{2}}){_CLOCK}",
    rf"(?:[A-Za-z]{{3,9}},? )?{_MONTH} \d{{1,2}},? \d{{4}}{_CLOCK}",
    rf"{_MONTH}[ -]\d{{4}}",
    r"\d{1,2}/\d{4}",
    r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s?[AaPp][Mm])?",
]
_LOOKS = re.compile("|".join(f"(?:{pattern.replace(chr(92) + '1', '[/.-]')})" for pattern in _PATTERNS))

_DAYS = [
    "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y",
    "%m/%d/%y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y", "%d %B %Y", "%d. %B %Y", "%d. %b %Y", "%d-%b-%Y", "%d-%b-%y",
    "%d %b %y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%a, %b %d, %Y", "%A, %B %d, %Y", "%Y%m%d",
]  # fmt: skip
_CLOCKS = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p"]
_OTHER = ["%b %Y", "%B %Y", "%b-%Y", "%m/%Y", "%Y"]
#: Times of a day: the numbers are fractions of it.
_TIMES = ["%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p"]
ISO = "ISO8601"


def look_like_dates(texts: Sequence[str]) -> list[bool]:
    """Return which texts look like dates or times, and are valid in at least one of the usual formats."""
    looks = [_LOOKS.fullmatch(text) is not None for text in texts]
    some = [text for text, matched in zip(texts, looks, strict=True) if matched]
    return looks if some and find_formats(some[:20]) else [False] * len(texts)


def find_formats(texts: Sequence[str]) -> list[str]:
    """Return the usual formats in which all texts are dates; two if day and month may be either."""
    texts = list(dict.fromkeys(texts))
    if texts and all(_ISO.fullmatch(text) for text in texts) and _fits(texts, ISO):
        return [ISO]
    formats = [*map("".join, product(_DAYS, _CLOCKS)), *_OTHER, *_TIMES]
    found = [format for format in formats if _fits_one(texts[0], format) and _fits(texts, format)] if texts else []
    different: dict[bytes, str] = {}
    for format in found:
        different.setdefault(to_days(texts, format).tobytes(), format)
    return list(different.values())


def to_days(texts: Sequence[str], format: str) -> numpy.ndarray:
    """Return dates as days since 1970-01-01, and times as fractions of a day, float64; NaN for a text that is none.

    Args:
        texts: dates; those with another time zone are converted to UTC.
        format: as in `datetime.strptime`, or `ISO`.
    """
    column = pandas.Series(list(texts), dtype=object)
    if format == ISO:
        column = column.where([_ISO.fullmatch(text) is not None for text in texts], None)
    moments = pandas.to_datetime(column, format=format, errors="coerce", utc=True)
    start = pandas.Timestamp("1900-01-01" if _is_time(format) else "1970-01-01", tz="UTC")
    days: numpy.ndarray = ((moments - start) / pandas.Timedelta(days=1)).to_numpy(dtype=float)
    return days


def _fits(texts: Sequence[str], format: str) -> bool:
    return not numpy.isnan(to_days(texts, format)).any()


def _fits_one(text: str, format: str) -> bool:
    """Return what `_fits` does for one text, faster."""
    try:
        datetime.strptime(text, format)
    except ValueError:
        return False
    return True


def _is_time(format: str) -> bool:
    return format != ISO and not re.search("%[YymdbBjUWcxGs]", format)
