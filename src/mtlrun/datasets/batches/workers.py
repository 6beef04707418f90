"""Worker processes that load samples: which signals reach them, when they end, and when their death is noticed.

A terminal and a cluster send the signals that stop a run to all of its processes. Only the training process decides
what to do then, and it needs its workers until it has.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mtlrun.errors import STOP_SIGNALS


@contextmanager
def starting_workers() -> Iterator[None]:
    """Make the workers of a DataLoader in the block.

    Signals that stop a run wait until the block ends, and in workers until `prepare_worker`.
    """
    mask, handler = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS), signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        deaths.take_over(handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def prepare_worker(_: int) -> None:
    """Let this process, a worker, go on when a signal stops the run, and end when the training process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_next)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_at_the_next(number: int, _: Any) -> None:
    """Ignore one SIGTERM; another is PyTorch's, which ends a worker that does not end by itself."""
    signal.signal(number, signal.SIG_DFL)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, in whatever way; PyTorch looks for it only between samples."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Deaths:
    """The handler of SIGCHLD that PyTorch sets, called only while a batch is waited for.

    It raises an error if a worker has died, and would do so anywhere: in the middle of a step, or while the record is
    written.
    """

    def __init__(self) -> None:
        self._check: Callable[[int, Any], Any] | None = None
        self._others: Any = None
        self._waiting = False

    def take_over(self, earlier: Any) -> None:
        """Take the place of PyTorch's handler if it was set since there was the `earlier` one."""
        handler = signal.getsignal(signal.SIGCHLD)
        if handler is not earlier and callable(handler):
            self._check, self._others = handler, earlier
            signal.signal(signal.SIGCHLD, self._note)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise PyTorch's RuntimeError, at once or at any time in the block, if a worker has died."""
        self._waiting = True
        try:
            if self._check is not None:
                self._check(signal.SIGCHLD, None)
            yield
        finally:
            self._waiting = False

    def _note(self, number: int, frame: Any) -> None:
        if self._waiting and self._check is not None:
            self._check(number, frame)
        elif callable(self._others):
            self._others(number, frame)


deaths = _Deaths()
