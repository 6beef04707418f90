"""Refusal of what cannot be in memory, before the machine is brought to a standstill."""

import math
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mtlrun.errors import ConfigError, OutOfMemoryError
from mtlrun.setup.machine import free_memory, memory_size

# More than there are addresses.
_ENDLESS = re.compile("invalid buffer size|size calculation overflowed")
_UNABLE = re.compile(f"can't allocate memory|not enough memory|out of memory|Unable to allocate|{_ENDLESS.pattern}")
# How much PyTorch and NumPy were asked for.
_ASKED = re.compile(r"tried to allocate (\d+) bytes|Unable to allocate ([\d.]+) ([KMGTPE])iB")
_UNITS = "KMGTPE"


@contextmanager
def within_memory(what: str, advice: str) -> Iterator[None]:
    """Raise an error as soon as what is made in the block does not fit into the memory.

    Parameters are counted when they are registered, since the system gives out more memory than it has until it is
    written to. On Linux without a GPU, the process cannot get more than is free for as long as the block lasts.

    Args:
        what: is made, with the key first, such as `model: its parameters`.
        advice: what to do instead.

    Raises:
        ConfigError: it is more than the machine has.
        OutOfMemoryError: it is more than is free at the moment.
    """
    size, free, before, parameters = memory_size(), free_memory(), _taken(), 0
    refused = ConfigError(f"{what} cannot fit into the memory of this machine, {size / 2**30:.0f} GiB; {advice}")

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal parameters
        parameters += 0 if parameter is None or parameter.is_meta else parameter.nbytes  # a meta tensor has no bytes
        if parameters > size:
            raise refused

    handle = register_module_parameter_registration_hook(count)
    try:
        with _limited(free):
            yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{what} cannot fit into the memory that is free on the GPU; end other programs, or {advice}"
        ) from error
    except (MemoryError, RuntimeError, OverflowError) as error:
        if not isinstance(error, OverflowError) and not is_out_of_memory(error):
            raise
        if isinstance(error, OverflowError) or _taken() - before + _bytes_asked_for(str(error)) > size:
            raise refused from error
        raise OutOfMemoryError(
            f"{what} cannot fit into the memory that is free at the moment, {free / 2**30:.1f} of {size / 2**30:.0f} "
            f"GiB; end other programs, or {advice}"
        ) from error
    finally:
        handle.remove()


def check_room_for(needed: int, what: str, advice: str, device: torch.device) -> None:
    """Check that so many bytes, of which nothing is taken yet, fit into the memory of a device.

    Raises:
        ConfigError: they are more than there is.
        OutOfMemoryError: they are more than is free at the moment.
    """
    if device.type == "cuda":
        free, size, where = *torch.cuda.mem_get_info(device), "GPU"
    elif device.type == "cpu":
        free, size, where = free_memory(), memory_size(), "machine"
    else:
        return
    if needed > size:
        raise ConfigError(f"{what} need {needed / 2**30:.0f} GiB, and this {where} has {size / 2**30:.0f}; {advice}")
    if needed > free:
        raise OutOfMemoryError(
            f"{what} need {needed / 2**30:.1f} GiB, and this {where} has {free / 2**30:.1f} free at the moment; end "
            f"other programs, or {advice}"
        )


@contextmanager
def _limited(free: int) -> Iterator[None]:
    """Let this process get so many bytes, and no more, until the block ends; on Linux only, and not beside a GPU.

    CUDA reserves much more memory than it takes.
    """
    taken, limits = _taken(), resource.getrlimit(resource.RLIMIT_DATA)
    if not taken or limits[0] != resource.RLIM_INFINITY or torch.cuda.is_available():
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (taken + free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that there was no memory for a tensor or array, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_UNABLE.search(str(error))) and "CUDA" not in str(error)


def _taken() -> int:
    """Return the bytes of data of this process, 0 if the system does not show them."""
    with suppress(OSError):
        found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        return 1024 * int(found[1]) if found else 0
    return 0


def _bytes_asked_for(message: str) -> float:
    """Return how much memory was asked for in vain, 0 if the message does not have it."""
    if _ENDLESS.search(message):
        return math.inf
    found = _ASKED.search(message)
    if found is None:
        return 0
    return int(found[1]) if found[1] else float(found[2]) * 1024 ** (_UNITS.index(found[3]) + 1)
