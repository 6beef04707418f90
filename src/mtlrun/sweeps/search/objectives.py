"""The objectives of a search: what is read from a run, while it runs and when it is completed."""

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError
from mtlrun.records.folder import METRICS
from mtlrun.records.record import Record
from mtlrun.training.skill import Skills

#: The objective that takes all tasks into account: the mean skill of their main metrics.
MEAN_SKILL = "mean_skill"
_TAG = "val"
_OPTUNA: Mapping[str, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}


@dataclass(frozen=True)
class Scale:
    """What is known of the metrics of validation before a run is trained; the fork server reports it of a check.

    Args:
        main_metrics: {task: metric}.
        skills: of which the constant predictions are not known yet.
    """

    main_metrics: Mapping[str, str]
    skills: Skills

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> "Scale":
        """Return the scale that the fork server has found."""
        return cls(found["main_metrics"], Skills(**found["skills"]))


class Objectives:
    """What a search compares runs by: metrics of validation, or their mean skill.

    Args:
        names: `mean_skill`, or `<task>/<metric>`; several for a Pareto set.
        scale: of the metrics.

    Raises:
        ConfigError: there is no such metric, or none is given.
    """

    def __init__(self, names: Sequence[str], scale: Scale) -> None:
        directions = scale.skills.directions
        known = [MEAN_SKILL, *(f"{task}/{metric}" for task, metrics in directions.items() for metric in metrics)]
        problems = [
            f"hydra.sweeper.objectives: there is no {name}; {suggest(name, known)}"
            for name in names
            if name not in known
        ]
        if len(set(names)) < max(len(names), 1):
            problems.append(f"hydra.sweeper.objectives={list(names)}: must be one or more, each once")
        if problems:
            raise ConfigError(problems)
        self.names, self._scale = list(names), scale
        self.directions = [_OPTUNA[self._direction(name)] for name in names]

    def values(self, record: Record) -> list[float]:
        """Return the values of a completed run, of the selected checkpoint; NaN where one is not defined."""
        return [self._value(name, record) for name in self.names]

    def curve(self, folder: Path, trivial: Mapping[str, Any]) -> list[float]:
        """Return the value of the first objective in each evaluation of a run so far.

        Args:
            folder: of the run.
            trivial: {task: {metric: value}} of constant predictions on validation, which fix the skills.
        """
        evaluations = list(_evaluations(folder))
        if self.names[0] != MEAN_SKILL:
            task, metric = self.names[0].split("/")
            return [metrics.get(task, {}).get(metric, nan) for metrics in evaluations]
        skills = copy.deepcopy(self._scale.skills)
        skills.trivial = {"val": {task: dict(values) for task, values in trivial.items()}}
        main_metrics = self._scale.main_metrics
        values = []
        for number, metrics in enumerate(evaluations):
            if any(metric not in metrics.get(task, {}) for task, metric in main_metrics.items()):
                values.append(nan)
                continue
            skills.fix_references(metrics)
            if number == 0:
                skills.find_undefined(metrics, main_metrics.items())
            pairs = [(task, skills.compared(task, metric)) for task, metric in main_metrics.items()]
            undefined, mean = skills.mean(metrics, pairs)
            values.append(nan if undefined else float(mean))
        return values

    def _direction(self, name: str) -> str:
        if name == MEAN_SKILL:
            return "max"
        task, metric = name.split("/")
        return self._scale.skills.directions[task][metric]

    def _value(self, name: str, record: Record) -> float:
        if name == MEAN_SKILL:
            return fmean(record.skills.get(task, {}).get("selected", nan) for task in self._scale.main_metrics)
        task, metric = name.split("/")
        return record.val.get(task, {}).get(metric, nan)

    def undefined(self, values: Sequence[float]) -> str:
        """Return which of the values are not finite, in words; "" if all are."""
        found = [f"{name} is {value}" for name, value in zip(self.names, values, strict=True) if not isfinite(value)]
        return " and ".join(found)


def _evaluations(folder: Path) -> list[dict[str, dict[str, float]]]:
    """Return {task: {metric: value}} of each evaluation of validation that a run has written down."""
    found = []
    with suppress(OSError), open(folder / METRICS, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or b'"val"' not in line:
                continue
            with suppress(ValueError):
                entry = json.loads(line)
                metrics: dict[str, dict[str, float]] = {}
                for tag, value in entry.items():
                    split, *names = tag.split("/", 2)
                    if split == _TAG and len(names) == 2:
                        metrics.setdefault(names[0], {})[names[1]] = value
                found.append(metrics)
    return found
