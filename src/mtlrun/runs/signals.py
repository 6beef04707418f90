"""Signals that stop a run: after its present step, or at once where there is nothing to complete."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mtlrun.errors import RunInterruptedError


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


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise RunInterruptedError within the block, as soon as Python can."""

    def stop(number: int, _: Any) -> None:
        raise RunInterruptedError(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
