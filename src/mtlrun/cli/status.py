"""mtlrun status <folder> ...: the state of each run, from any terminal that sees the folder."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mtlrun.errors import DataError
from mtlrun.records.display import make_console, print_table
from mtlrun.records.overview import Entry, duration, newest_metrics, read_entries
from mtlrun.records.text_table import TextTable

_USAGE = "usage: mtlrun status <folder> [<folder> ...]"
#: What stands first: what somebody may have to do something about.
_ORDER = (
    "failed",
    "diverged",
    "killed",
    "silent",
    "unreadable",
    "interrupted",
    "running",
    "queued",
    "waiting",
    "completed",
)


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
    table = _table(entries, beneath=False)
    print_table(console, table if table.width < console.width else _table(entries, beneath=True), margin=0)
    counts = Counter(entry.state for entry in entries)
    console.print(f"{len(entries)} runs: " + ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]))
    return 0


def _table(entries: Sequence[Entry], *, beneath: bool) -> TextTable:
    """Return the runs as a table; on a narrow screen, what is long stands beneath each of them."""
    header = ["state", "run", "progress", "left", *([] if beneath else ["newest", "where"])]
    rows: list[Sequence[str] | str] = []
    for entry in entries:
        record, beat = entry.record, entry.beat if entry.state in ("running", "silent") else None
        progress = left = where = ""
        if beat is not None:
            progress, left = f"{beat.step}/{beat.total_steps}", duration(beat.seconds_left)
            where = f"{beat.host}, process {beat.pid}, {round(beat.age)} s ago"
        elif record is not None and record.total_steps:
            progress = f"{record.steps}/{record.total_steps}"
        if entry.job:
            where = f"job {entry.job}"
        newest = newest_metrics(record, beat)
        if record is not None and record.error and entry.state in ("failed", "diverged"):
            newest = " ".join(record.error.split())
        cells = [entry.state, entry.run_id, progress, left]
        rows.append(cells if beneath else [*cells, newest, where])
        if beneath and (newest or where):
            rows.append(f"    {'; '.join(filter(None, (newest, where)))}")
    return TextTable(header, rows, num_left=len(header))
