"""mtlrun status <folder> ...: the state of each run, from any terminal that sees the folder."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from mtlrun.errors import DataError
from mtlrun.records.display import make_console
from mtlrun.records.overview import Entry, duration, newest_metrics, read_entries

_USAGE = "usage: mtlrun status <folder> [<folder> ...]"
#: What stands first: what somebody may have to do something about.
_ORDER = ("failed", "diverged", "killed", "silent", "unreadable", "interrupted", "running", "waiting", "completed")


def main(arguments: Sequence[str]) -> int:
    """Print a line for each run, and how many are in which state."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    roots = [Path(argument).expanduser() for argument in arguments]
    missing = [str(root) for root in roots if not root.is_dir()]
    if missing:
        raise DataError(f"{', '.join(missing)}: no such folder")
    entries = sorted(read_entries(roots), key=lambda entry: (_ORDER.index(entry.state), entry.run_id))
    if not entries:
        raise DataError(f"no runs in or below {', '.join(arguments)}")
    console = make_console()
    console.print(_table(entries))
    counts = Counter(entry.state for entry in entries)
    console.print(f"{len(entries)} runs: " + ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]))
    return 0


def _table(entries: Sequence[Entry]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("state", "run", "progress", "left", "newest", "where"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        record, beat = entry.record, entry.beat if entry.state in ("running", "silent") else None
        progress = left = where = ""
        if beat is not None:
            progress, left = f"{beat.step}/{beat.total_steps}", duration(beat.seconds_left)
            where = f"{beat.host}, process {beat.pid}, {round(beat.age)} s ago"
        elif record is not None and record.total_steps:
            progress = f"{record.steps}/{record.total_steps}"
        newest = newest_metrics(record, beat)
        if record is not None and record.error and entry.state in ("failed", "diverged"):
            newest = record.error
        table.add_row(entry.state, entry.run_id, progress, left, newest, where)
    return table
