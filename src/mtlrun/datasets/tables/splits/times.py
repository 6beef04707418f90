"""Times of rows: numbers, or dates in a format that leaves no doubt, as numbers that increase with time."""

from collections.abc import Sequence

import numpy
import pandas

from mtlrun.datasets.tables.reading.columns import Columns
from mtlrun.errors import DataError

# Formats that can be told apart, or are tried together: where day and month may be confused, both are listed.
_CERTAIN = ("ISO8601", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y")
_UNCERTAIN = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")


def read_times(table: Columns, column: str) -> numpy.ndarray:
    """Return a number for each row that increases with its time, float64 or int64 [num_rows].

    Raises:
        DataError: a cell is empty, neither a number nor a date, or a date that can be read in two ways.
    """
    cells = table.texts(column)
    if None in cells:
        raise DataError(table.needs_cell(column, cells.index(None), "a time"))
    texts = [str(cell).strip() for cell in cells]
    numbers: numpy.ndarray = pandas.to_numeric(pandas.Series(texts, dtype=object), errors="coerce").to_numpy(
        dtype=float
    )
    if numpy.isfinite(numbers).all():
        return numbers
    for form in _with_clocks(_CERTAIN):
        times = _parse(texts, form)
        if times is not None:
            return times
    found = {form: times for form in _with_clocks(_UNCERTAIN) if (times := _parse(texts, form)) is not None}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise DataError(
            f"{table.where(column, 0)}: {texts[0]!r} may be day and month or month and day, as every date of the "
            f"column; write dates as year-month-day"
        )
    row = int((~numpy.isfinite(numbers)).argmax()) if numpy.isfinite(numbers).any() else _first_unreadable(texts)
    raise DataError(
        f"{table.where(column, row)}: {texts[row]!r} is no time like the others; dataset.time_column needs numbers, or "
        f"dates in one format, such as 2024-01-31 or 2024-01-31 12:30"
    )


def _with_clocks(formats: Sequence[str]) -> list[str]:
    return [form + clock for form in formats for clock in (_CLOCKS if form != "ISO8601" else ("",))]


def _parse(texts: Sequence[str], form: str) -> numpy.ndarray | None:
    """Return the times in nanoseconds, None if some text has another format."""
    try:
        times = pandas.to_datetime(pandas.Series(texts, dtype=object), format=form, utc=True)
    except (ValueError, OverflowError):
        return None
    nanoseconds: numpy.ndarray = times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]").astype(numpy.int64)
    return nanoseconds


def _first_unreadable(texts: Sequence[str]) -> int:
    """Return the first row that is no date where most rows are; the first one if none is."""
    for form in _with_clocks((*_CERTAIN, *_UNCERTAIN)):
        times = pandas.to_datetime(pandas.Series(texts, dtype=object), format=form, utc=True, errors="coerce")
        if times.notna().mean() > 0.5:
            return int(times.isna().to_numpy().argmax())
    return 0
