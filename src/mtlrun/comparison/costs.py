"""What the runs of a table cost: time per step, memory and parameters, where they can be compared."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from math import isfinite
from typing import Any

from mtlrun.comparison.columns import PARAMETERS, PEAK_MEMORY, SECONDS_PER_STEP, Column
from mtlrun.comparison.groups import ConfigGroup, Repetition
from mtlrun.comparison.run import Run

Costs = list[dict[Column, dict[Repetition, float]]]


def measure_costs(groups: Sequence[ConfigGroup]) -> tuple[Costs, list[str]]:
    """Return {column: {repetition: value}} of each group, and what is to be known about the numbers.

    Time and memory are those of the hardware that most runs were trained on; of a run on another they are left out.
    """
    trained = [run for group in groups for run in group.runs if run.record.test and run.record.steps > 0]
    counts = Counter(map(_hardware, trained))
    common = counts.most_common(1)[0][0] if counts else ""
    costs: Costs = []
    for group in groups:
        of_group: dict[Column, dict[Repetition, float]] = {SECONDS_PER_STEP: {}, PEAK_MEMORY: {}, PARAMETERS: {}}
        for repetition, run in group.repetitions().items():
            if run.record.parameters:
                of_group[PARAMETERS][repetition] = float(sum(run.record.parameters.values()))
            if run.record.test and run.record.steps > 0 and _hardware(run) == common:
                of_group[SECONDS_PER_STEP][repetition] = run.record.seconds.get("train", 0.0) / run.record.steps
                memory = run.record.peak_memory_mib
                of_group[PEAK_MEMORY][repetition] = memory.get("gpu", memory.get("process", 0.0))
        costs.append(
            {
                column: {key: value for key, value in values.items() if isfinite(value) and value > 0}
                for column, values in of_group.items()
            }
        )
    return costs, _describe(trained, common, counts)


def _describe(trained: Sequence[Run], common: str, counts: Counter[str]) -> list[str]:
    if not trained:
        return []
    lines = []
    if len(counts) > 1:
        others = sum(counts.values()) - counts[common]
        lines.append(
            f"time and memory are those of the runs on {common}; of {others} runs on other hardware they are left out "
            "(--)"
        )
    if _overlap(run for run in trained if _hardware(run) == common):
        lines.append("runs trained side by side on one machine; alone, a step would take less time than ms/step")
    return lines


def _hardware(run: Run) -> str:
    """Return in words what a run was computed on, as far as its record knows it."""
    environment: dict[str, Any] = run.record.environment
    threads = environment.get("threads")
    words = [environment.get("gpu") or environment.get("device"), environment.get("platform")]
    words += [f"{environment.get('cpus')} CPUs", "1 thread" if threads == 1 else f"{threads} threads"]
    return ", ".join(str(word) for word in words if word is not None)


def _overlap(runs: Iterable[Run]) -> bool:
    """Return True if two of the runs were trained at the same time on one machine."""
    spans: dict[Any, list[tuple[datetime, datetime]]] = {}
    for run in runs:
        try:
            span = datetime.fromisoformat(run.record.started), datetime.fromisoformat(run.record.ended)
            spans.setdefault(str(run.record.environment.get("host")), []).append(span)
        except ValueError:
            continue
    try:
        ordered = [sorted(of_host) for of_host in spans.values()]
        return any(later[0] < earlier[1] for of_host in ordered for earlier, later in pairwise(of_host))
    except TypeError:  # some with a time zone, some without
        return False
