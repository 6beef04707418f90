"""The results of a benchmark: tables in Markdown, and the same as JSON, which a run that is cut off leaves as well."""

import json
import math
import os
import platform
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


@dataclass
class Table:
    """A table of results, whose cells are texts."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)


@dataclass
class Aim:
    """Something that was to be reached, and whether it was; `met` is None where it was not measured."""

    text: str
    found: str
    met: bool | None


class Results:
    """What a benchmark found so far. Each row is printed, and written to a file, as soon as it is there.

    SIGTERM then ends the program as `sys.exit` does, so that it can still say what it has found.

    Args:
        path: of the JSON file; None for none.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.command = shlex.join([Path(sys.executable).name, *sys.argv])
        self.machine = describe_machine()
        self.tables: list[Table] = []
        self.notes: list[str] = []
        self.aims: list[Aim] = []
        #: {name: anything that JSON can hold}: the figures behind the tables.
        self.raw: dict[str, object] = {}
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        print(self.machine, flush=True)

    def table(self, title: str, header: Sequence[str]) -> None:
        """Begin a table, to which the following rows belong."""
        self.tables.append(Table(title, list(header)))
        print(f"\n{title}\n")
        print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)

    def row(self, *cells: object) -> None:
        """Add a row to the newest table: numbers get three digits, NaN becomes a dash."""
        texts = [show(cell) for cell in cells]
        self.tables[-1].rows.append(texts)
        print(f"| {' | '.join(texts)} |", flush=True)
        self.write()

    def note(self, text: str) -> None:
        """Add a sentence, such as what was left out and why."""
        self.notes.append(text)
        print(f"\n{text}", flush=True)
        self.write()

    def aim(self, text: str, found: float, met: bool) -> None:
        """Add an aim; one whose figure is NaN was not measured."""
        self.aims.append(Aim(text, show(found), None if math.isnan(found) else met))
        print(f"\n{text}: {show(found)}", flush=True)
        self.write()

    def write(self) -> None:
        """Write all of it to the file; the file is whole at any moment."""
        if self.path is None:
            return
        content = {
            "command": self.command,
            "machine": self.machine,
            "tables": [asdict(table) for table in self.tables],
            "notes": self.notes,
            "aims": [asdict(aim) for aim in self.aims],
            "raw": self.raw,
        }
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(self.path)


def show(cell: object) -> str:
    """Return a cell's text."""
    if not isinstance(cell, float):
        return str(cell)
    if math.isnan(cell):
        return "-"
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}" if abs(cell) < 0.1 else f"{cell:.2f}"


def describe_machine() -> str:
    """Return a line on the device, the number of threads, and the versions that a figure depends on."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        device = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN "
        device += str(torch.backends.cudnn.version())
    else:
        device = f"CPU ({platform.machine()}, no GPU), {torch.get_num_threads()} of {os.cpu_count()} cores"
    packages = ("torch", "torchvision", "torchjd", "numpy")
    versions = ", ".join(f"{name} {found}" for name in packages if (found := installed(name)))
    return f"{device}; Python {platform.python_version()}, {versions}"


def installed(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
