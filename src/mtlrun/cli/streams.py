"""Standard output and error, as streams whose loss ends no run: who looks at a run must not end it.

`mtlrun ... | head -1` closes the pipe, a log file fills its disk, a terminal is gone: what is printed from then on is
dropped, and that is said once, wherever it still can be. Where the output is all that a command is for, it fails.
"""

import errno
import io
import logging
import os
import sys
from select import select
from typing import Any, TextIO

from mtlrun.records.characters import in_ascii, is_unicode
from mtlrun.records.notes import NOTED

logger = logging.getLogger("mtlrun")


def install() -> None:
    """Put streams that drop what they cannot write in the place of standard output and error.

    Descriptors that are closed are opened on the null device: the next file that is opened, such as one of the run's,
    would get their number, and with it whatever is printed.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = Stream(sys.stdout, 1, "standard output")
    if sys.stderr is sys.__stderr__:
        sys.stderr = Stream(sys.stderr, 2, "standard error")


def begin_run() -> None:
    """From here on, warn if a stream is lost, and take no notice otherwise; each run of a sweep warns again."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.begin_run()


def finish(exit_code: int) -> int:
    """Write what is still to be written, and return the exit code of the program.

    It is 1 if the output that a command is for could not be written. If its reader has seen enough and closed the
    pipe, all is well.
    """
    sys.stdout.flush()
    stream = sys.stdout
    if isinstance(stream, Stream) and stream.error is not None and not stream.in_run:
        if stream.error.errno == errno.EPIPE:
            return exit_code
        print(f"mtlrun: {stream.describe_loss()}", file=sys.stderr)
        return exit_code or 1
    return exit_code


class _Descriptor(io.FileIO):
    """A file descriptor; after the first error, what is written to it is dropped."""

    error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                while (count := super().write(content)) is None:  # full, and made non-blocking by another program
                    select([], [self], [])
                return count
            except OSError as error:
                self.error = error
        return memoryview(content).nbytes


class Stream(io.TextIOWrapper):
    """A standard stream that raises neither an OSError nor a UnicodeEncodeError.

    Signs that its encoding may lack are written in ASCII, other characters that it lacks as backslash escapes.

    Args:
        original: the stream that Python made, None if the descriptor was closed.
        descriptor: 1 or 2.
        title: what to call it.
    """

    def __init__(self, original: TextIO | None, descriptor: int, title: str) -> None:
        self._descriptor = _Descriptor(descriptor, "w", closefd=False)
        self._title, self._is_warned_of, self.in_run = title, False, False
        encoding = _encoding(original)
        self._is_unicode = is_unicode(encoding)
        super().__init__(
            io.BufferedWriter(self._descriptor),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=descriptor == 2 or self._descriptor.isatty() or getattr(original, "write_through", False),
        )

    @property
    def error(self) -> OSError | None:
        """What the first write that failed raised."""
        return self._descriptor.error

    def describe_loss(self) -> str:
        """Return in words that the stream is lost, and why."""
        assert self.error is not None
        return f"{self._title} cannot be written: {self.error.strerror or self.error}"

    def begin_run(self) -> None:
        """Warn if the stream turns out to be lost."""
        self.in_run, self._is_warned_of, self._descriptor.error = True, False, None

    def write(self, text: str) -> int:
        super().write(text if self._is_unicode else in_ascii(text))
        self._warn_if_lost()
        return len(text)

    def flush(self) -> None:
        super().flush()
        self._warn_if_lost()

    def _warn_if_lost(self) -> None:
        if self.error is None or self._is_warned_of or not self.in_run:
            return
        self._is_warned_of = True
        warning = f"{self.describe_loss()}; going on without it"
        if logger.handlers:
            logger.warning("%s", warning, extra=NOTED)
        if self is not sys.stderr:
            print(f"mtlrun: {warning}", file=sys.stderr)


def _encoding(original: TextIO | None) -> str:
    """Return the encoding of a stream: ASCII where that is asked for by LC_ALL=C, for which Python takes UTF-8."""
    asked_for_ascii = os.environ.get("LC_ALL") in ("C", "POSIX")
    if asked_for_ascii and not os.environ.keys() & {"PYTHONIOENCODING", "PYTHONUTF8"}:
        return "ascii"
    return "utf-8" if original is None else original.encoding
