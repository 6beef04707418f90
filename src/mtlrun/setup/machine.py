"""The memory of this machine, or of the part of it that a container or a cluster gives a process; without PyTorch."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Of memory.stat, what the system takes back before a group runs out of memory: files in memory, and caches of its own.
_RECLAIMABLE = ("active_file", "inactive_file", "slab_reclaimable")


def memory_size() -> int:
    """Return the bytes of memory of the machine, or of the part of it that this process may use."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([size, *(limit for limit, _ in _limits_of_groups())])


def free_memory(*, swap: bool = True) -> int:
    """Return the bytes of memory that this process can still get, files in memory that can be dropped among them.

    Args:
        swap: count the space on disk to which other programs can be moved.
    """
    kib = {}
    with suppress(OSError):  # on systems other than Linux
        kib = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    if "MemAvailable" in kib:
        free = 1024 * (int(kib["MemAvailable"]) + (int(kib.get("SwapFree", 0)) if swap else 0))
    else:
        import psutil

        free = psutil.virtual_memory().available
    return min([free, *(max(limit - taken, 0) for limit, taken in _limits_of_groups())])


def _limits_of_groups() -> Iterator[tuple[int, int]]:
    """Yield how much memory each control group of this process may take, and how much it has taken; version 2 only."""
    with suppress(OSError, ValueError):
        path = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        yield from limits_of(Path("/sys/fs/cgroup", path[1] if path else ""))


def limits_of(group: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit of a control group, and of each that it is in, and the bytes that it cannot give back.

    Raises:
        OSError, ValueError: the folder is not that of a control group.
    """
    for folder in (group, *group.parents):
        if (limit := folder / "memory.max").exists() and (text := limit.read_text().strip()) != "max":
            counts = dict(re.findall(r"^(\w+) (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE))
            taken = int((folder / "memory.current").read_text())
            yield int(text), max(taken - sum(int(counts.get(name, 0)) for name in _RECLAIMABLE), 0)
