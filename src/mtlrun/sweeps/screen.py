"""What a sweep shows: a line for everything that happens, and at the end what failed and how to repeat it."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mtlrun.records.heartbeat import Heartbeat
from mtlrun.records.overview import duration, newest_metrics, seconds_left
from mtlrun.records.printable import printable
from mtlrun.records.record import Record
from mtlrun.sweeps.jobs import Job, State

_STATES: tuple[State, ...] = (
    "completed", "pruned", "failed", "diverged", "refused", "interrupted", "elsewhere", "running", "waiting",
)  # fmt: skip


class LineView:
    """Plain lines, for a pipe or a file.

    Args:
        command: the words before the overrides that make one run of the sweep, such as `mtlrun --config-dir=conf`.
        write: prints a line.
    """

    def __init__(self, command: Sequence[str], write: Callable[[str], None]) -> None:
        self._command, self._write = list(command), write
        self._jobs: Sequence[Job] = ()
        self._total = 0

    def begin(self, jobs: Sequence[Job], total: int) -> None:
        self._jobs, self._total = jobs, total
        done = [job for job in jobs if job.was_done]
        self._write(f"{total} runs" + (f", {len(done)} of them finished already" if done else ""))

    def started(self, job: Job) -> None:
        verb = "submitted" if job.place is None else "started"  # a cluster starts it when it has room
        self._write(f"{self._place_of(job)} {verb}: {' '.join(job.overrides)}")

    def ended(self, job: Job) -> None:
        if job.state in ("failed", "diverged"):
            for line in self.describe_failure(job):
                self._write(line)
        elif job.state == "completed":
            self._write(f"{self._place_of(job)} completed in {job.seconds:.1f} s{self._result(job)}")
        else:
            self._write(f"{self._place_of(job)} {job.state}" + (f": {job.error}" if job.error else ""))

    def tick(self) -> None:
        pass

    def stopping(self, number: int) -> None:
        self._write("stopping: what runs saves a checkpoint first; the same signal again ends it at once")

    def end(self) -> None:
        counts = Counter(job.state for job in self._jobs)
        self._write(", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state]))
        failures = [job for job in self._jobs if job.state in ("failed", "diverged")]
        for job in failures:
            for line in self.describe_failure(job):
                self._write(line)

    def _result(self, job: Job) -> str:
        metrics = ""
        with suppress(Exception):  # the run is completed, whatever its record looks like
            metrics = newest_metrics(Record.read(job.folder), None)
        return metrics and f": {metrics}"

    def describe_failure(self, job: Job) -> list[str]:
        """Return why a job failed, where it is, and the command that repeats it."""
        return [
            f"{self._place_of(job)} {job.state}: {job.error}",
            f"    folder: {job.folder}",
            f"    again:  {self.command_of(job)}",
        ]

    def command_of(self, job: Job) -> str:
        """Return the command that makes this run alone."""
        return shlex.join([*self._command, *job.overrides])

    def _place_of(self, job: Job) -> str:
        return f"{job.number}/{self._total} {job.run_id}:"


class LiveView(LineView):
    """A table of what runs, renewed in place on a terminal; what has ended is printed above it.

    Args:
        command: see `LineView`.
        console: a terminal.
        places: number of runs side by side.
    """

    def __init__(self, command: Sequence[str], console: Console, places: int) -> None:
        super().__init__(command, lambda line: console.print(Text(printable(line)), soft_wrap=True))
        self._console, self._places = console, places
        self._live: Live | None = None

    def begin(self, jobs: Sequence[Job], total: int) -> None:
        super().begin(jobs, total)
        self._live = Live(self._table(), console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def started(self, job: Job) -> None:
        self.tick()

    def tick(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
        super().end()

    def _table(self) -> Group:
        """Return the running runs, and a line on all."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("run", no_wrap=True)
        table.add_column("progress", no_wrap=True)
        table.add_column("left", no_wrap=True)
        table.add_column("newest", overflow="fold")
        left: list[float | None] = []
        running = [job for job in self._jobs if job.state == "running"]
        for job in running:
            beat = Heartbeat.read(job.folder)
            if beat is None and job.place is None:
                continue  # in the queue of a cluster, with perhaps a thousand others
            left.append(beat.seconds_left if beat is not None else None)
            progress = f"{beat.step}/{beat.total_steps}" if beat is not None else "starting"
            newest = newest_metrics(self._record(job), beat)
            table.add_row(Text(job.run_id), progress, duration(left[-1]), Text(printable(newest)))
        counts = Counter(job.state for job in self._jobs)
        counts["waiting"] += self._total - len(self._jobs)
        durations = [job.seconds for job in self._jobs if job.state == "completed" and not job.was_done]
        known = duration(seconds_left(left, durations, counts["waiting"], self._places))
        summary = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
        return Group(table, Text(summary + (f"; about {known} left" if known else "")))

    def _record(self, job: Job) -> Record | None:
        with suppress(Exception):
            return Record.read(job.folder)
        return None


def print_line(line: str) -> None:
    """Print a line at once."""
    print(printable(line), flush=True)
