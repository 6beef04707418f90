"""Signals that stop a run: after its present step, or at once where there is nothing to complete.

SIGINT, SIGTERM and SIGHUP; the last one not if the program was started to outlive its terminal, as by `nohup`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mtlrun.errors import STOP_SIGNALS, RunInterruptedError

Handler = Callable[[int, Any], None]


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Record the signals of the block, and yield a function that returns the first one, None before it.

    A second signal stops the program at once, also where it is usually ignored, as in what a script starts with `&`.
    """
    received: list[int] = []
    usual: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        received.append(number)
        at_once = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, at_once if usual[number] in (_exit, signal.SIG_IGN) else usual[number])

    with _handling(STOP_SIGNALS, note, usual):
        yield lambda: received[0] if received else None


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Let a signal raise RunInterruptedError within the block, as soon as Python can."""
    received: list[int] = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        raise RunInterruptedError(number)

    with _handling(STOP_SIGNALS, stop, {}):
        yield
    if received:  # and other people's code has caught the error
        raise RunInterruptedError(received[0])


@contextmanager
def exiting_at_once() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit within the block, as SIGINT raises KeyboardInterrupt."""
    with _handling((signal.SIGTERM, signal.SIGHUP), _exit, {}):
        yield


def _exit(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _handling(numbers: tuple[int, ...], handler: Handler, usual: dict[int, Any]) -> Iterator[None]:
    """Handle signals in the block; `usual` is filled with the handlers that they have outside of it."""
    if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
        for number in numbers:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                usual[number] = signal.getsignal(number)
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in usual.items():
            signal.signal(number, earlier)
