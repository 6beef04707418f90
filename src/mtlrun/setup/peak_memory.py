"""The peak memory of a run, in this process and on its GPU."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def forget_peaks() -> None:
    """Let what comes from now on be measured alone; the peak of a process can be forgotten on Linux only."""
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Return the peak memory of the process, and of tensors on the GPU if there is one, in MiB; see `forget_peaks`."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = {"process": peak / (2**20 if sys.platform == "darwin" else 2**10)}
    if device.type == "cuda":
        memory["gpu"] = torch.cuda.max_memory_allocated(device) / 2**20
    return memory
