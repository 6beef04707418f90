"""Which checkpoint is selected, and when training has gone on for long enough without a better one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Protocol

from mtlrun.errors import ConfigError

Metrics = Mapping[str, Mapping[str, float]]  # {task: {metric: value}}
Directions = Mapping[str, Mapping[str, str]]  # {task: {metric: "max" or "min"}}

MEAN_RELATIVE_GAIN = "mean_relative_gain"  # the rule that looks at all tasks


class Choice(Protocol):
    """What is made of the evaluations of some tasks: the weights that are kept, and the metrics of the record.

    `Selection` takes the best evaluation, `mtlrun.training.last_mean.LastMean` the mean of the last ones.
    """

    @property
    def tasks(self) -> Sequence[str]:
        """The tasks that are judged together."""

    @property
    def number(self) -> int:
        """The evaluation whose weights are kept, from 1; 0 before the first."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics that stand for these tasks so far, {task: {metric: value}}."""

    def exhausted(self, number: int) -> bool:
        """Say whether, after evaluation `number`, these tasks need no more training."""

    def offer(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        """Take note of an evaluation; say whether the weights as they are now are to be kept."""

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint needs to hold: dictionaries, lists, numbers and texts."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def summary(self) -> dict[str, object]:
        """Return how and where, for the record; after the first evaluation."""


def relative_gain(candidate: float, reference: float, direction: str) -> float:
    """Return the signed relative change from `reference` to `candidate`; positive is better.

    From exactly zero, any change counts as one. What is not finite is worse than what is.
    """
    if not isfinite(candidate) or not isfinite(reference):
        return float(isfinite(candidate)) - float(isfinite(reference))
    sign = 1.0 if direction == "max" else -1.0
    if reference == 0:
        return sign * ((candidate > 0) - (candidate < 0))
    return sign * (candidate - reference) / abs(reference)


@dataclass
class Selection:
    """The best evaluation so far of some tasks.

    An evaluation replaces the selected one if it is better by the rule: by the mean over the tasks of the relative
    change of their main metric (`mean_relative_gain`), or by one metric (`<task>/<metric>`). The comparison is with the
    selected evaluation itself, so no scale or reference from outside enters.

    Args:
        tasks: the tasks that are judged together.
        rule: `mean_relative_gain` or `<task>/<metric>`.
        directions: which way each metric is better.
        main_metrics: the metric of each task that `mean_relative_gain` looks at.
        patience: stop after so many evaluations without a better one; None for never.
        min_delta: by how much, relatively, an evaluation must be better.
    """

    tasks: Sequence[str]
    rule: str
    directions: Directions
    main_metrics: Mapping[str, str]
    patience: int | None = None
    min_delta: float = 0.0
    # The selected evaluation; number counts evaluations from 1.
    number: int = 0
    epoch: int = 0
    step: int = 0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def judged(self) -> list[tuple[str, str]]:
        """Return the (task, metric) pairs that the rule looks at."""
        if self.rule == MEAN_RELATIVE_GAIN:
            return [(task, self.main_metrics[task]) for task in self.tasks]
        task, metric = self.rule.split("/")
        return [(task, metric)]

    def relative_gain(self, metrics: Metrics) -> float:
        """Return the mean relative gain of `metrics` over the selected evaluation."""
        pairs = self.judged()
        gains = [
            relative_gain(metrics[task][metric], self.metrics[task][metric], self.directions[task][metric])
            for task, metric in pairs
        ]
        return sum(gains) / len(gains)

    def exhausted(self, number: int) -> bool:
        """Say whether, after evaluation `number`, patience has run out."""
        return self.patience is not None and number - self.number >= self.patience

    def offer(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        """Select this evaluation if it is better; say whether it was."""
        # The number is the same where a run was killed after this evaluation was saved as the best one.
        better = self.number in (0, number) or self.relative_gain(metrics) > self.min_delta
        if better:
            self.number, self.epoch, self.step = number, epoch, step
            self.metrics = {task: dict(metrics[task]) for task in self.tasks}
        return better

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint needs to hold."""
        return {"number": self.number, "epoch": self.epoch, "step": self.step, "metrics": self.metrics}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    def summary(self) -> dict[str, object]:
        """Return how and where the checkpoint was selected, for the record."""
        return {"tasks": list(self.tasks), "rule": self.rule, "epoch": self.epoch, "step": self.step}


def check_rule(rule: str, directions: Directions) -> None:
    """Raise ConfigError unless `rule` is `mean_relative_gain` or names a metric of a task."""
    allowed = [MEAN_RELATIVE_GAIN, *(f"{task}/{metric}" for task, metrics in directions.items() for metric in metrics)]
    if rule not in allowed:
        raise ConfigError(f"trainer.monitor must be one of {', '.join(allowed)}, found {rule!r}")
