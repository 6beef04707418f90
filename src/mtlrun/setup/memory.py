"""Refusal of what cannot be in memory, before the machine is brought to a standstill."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mtlrun.errors import ConfigError

_UNABLE = re.compile("can't allocate memory|not enough memory|out of memory|Unable to allocate|invalid buffer size")


@contextmanager
def within_memory(what: str, advice: str) -> Iterator[None]:
    """Raise ConfigError as soon as what is made in the block cannot fit into the memory of the machine.

    Parameters are counted when they are registered, since the system gives out more memory than it has until it is
    written to.

    Args:
        what: is made, with the key first, such as `model: its parameters`.
        advice: what to do instead.
    """
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    refused = ConfigError(f"{what} cannot fit into the memory of this machine, {size / 2**30:.0f} GiB; {advice}")
    total = 0

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel() * parameter.element_size()
        if total > size:
            raise refused

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError) as error:
        if isinstance(error, MemoryError | OverflowError) or _UNABLE.search(str(error)):
            raise refused from error
        raise
    finally:
        handle.remove()
