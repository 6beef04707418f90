"""Signals that stop a run after its present step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Record SIGINT and SIGTERM, and yield a function that returns the first one, None before it.

    A second signal has its usual effect: it stops the program at once.
    """
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
