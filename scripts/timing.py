"""Clocks and turns for the benchmarks: contestants take turns in one process, and figures are medians of ratios."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


def clock(device: torch.device) -> Callable[[], float]:
    """Return a function that returns seconds: on a GPU those that pass until it has done all its work.

    On the CPU it returns processor time, which does not count what other programs take.
    """
    if device.type != "cuda":
        return time.process_time

    def seconds() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return seconds


@dataclass
class Turns:
    """The seconds that each contestant took, round by round.

    Args:
        seconds: {contestant: [rounds]}, of one call.
        peak_bytes: {contestant: bytes}: by how much a call raises the memory in use on a GPU; empty on the CPU.
        failures: {contestant: reason}, of those that raised an exception and left the contest.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median seconds of a contestant; NaN if it failed."""
        return statistics.median(self.seconds[name]) if self.seconds.get(name) else math.nan

    def ratios(self, name: str, to: str) -> list[float]:
        """Return the ratios of two contestants' seconds within each round, sorted; none if one of them failed."""
        pairs = zip(self.seconds.get(name, []), self.seconds.get(to, []), strict=False)
        return sorted(one / other for one, other in pairs)

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios within rounds; NaN if a contestant failed."""
        return statistics.median(self.ratios(name, to) or [math.nan])

    def middle_half(self, name: str, to: str) -> tuple[float, float]:
        """Return the lower and the upper quartile of the ratios within rounds."""
        ratios = self.ratios(name, to) or [math.nan]
        quarter = len(ratios) // 4
        return ratios[quarter], ratios[-1 - quarter]


def take_turns(
    contestants: Mapping[str, Callable[..., object]],
    device: torch.device,
    *,
    rounds: int,
    warmup: int = 2,
    calls: int = 1,
    before: Callable[[str], tuple[Any, ...]] | None = None,
    deadline: float | None = None,
) -> Turns:
    """Let the contestants take turns, so that a machine that changes its speed slows all of them.

    Each round begins with another contestant. One that raises an exception leaves the contest, with its reason.

    Args:
        contestants: {name: function}.
        device: whose clock is read.
        rounds: of each contestant.
        warmup: rounds before those, which do not count.
        calls: of each contestant in a round, one after the other. On a GPU several let the host run ahead, as in
            training.
        before: called with the contestant's name before each call, outside of the time; the contestant gets what it
            returns. Only for `calls=1`.
        deadline: by `time.monotonic()`; after it no other round begins, once there is one.
    """
    if calls > 1 and before is not None:
        raise ValueError("before needs calls=1, since it is called outside of the time")
    turns, now, on_gpu = Turns({name: [] for name in contestants}), clock(device), device.type == "cuda"
    for number in range(-warmup, rounds):
        if number > 0 and deadline is not None and time.monotonic() > deadline:
            break
        names = [name for name in contestants if name not in turns.failures]
        start = number % len(names) if names else 0
        for name in names[start:] + names[:start]:
            held = torch.cuda.memory_allocated(device) if on_gpu else 0
            try:
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats(device)
                arguments = () if before is None else before(name)
                begin = now()
                for _ in range(calls):
                    contestants[name](*arguments)
                took = (now() - begin) / calls
                del arguments
            except Exception as error:  # a peer may lack an extra, or run out of memory
                turns.failures[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            if name in turns.failures:
                turns.seconds[name] = []
                gc.collect()
                if on_gpu:
                    torch.cuda.empty_cache()
            elif number >= 0:
                turns.seconds[name].append(took)
                if on_gpu:  # of a warm call: a first one also tries out algorithms
                    turns.peak_bytes[name] = torch.cuda.max_memory_allocated(device) - held
    return turns
