"""Notes that come from the log: what a run lacks is said where it is noticed, and stands in its record as well."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

#: The argument `extra` of a log line that is to be a note of the run's record.
NOTED = {"noted": True}


class _NoteTaker(logging.Handler):
    """A handler that keeps the text of each line that is to be a note, once.

    Args:
        notes: the list to which they are added.
    """

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "noted", False) and record.getMessage() not in self._notes:
            self._notes.append(record.getMessage())


@contextmanager
def taking_notes() -> Iterator[list[str]]:
    """Gather the notes among the log lines of the block."""
    notes: list[str] = []
    handler = _NoteTaker(notes)
    logger = logging.getLogger("mtlrun")
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
