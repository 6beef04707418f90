"""Selection: which model state is kept, which metrics are reported, and when training stops early."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel

Metrics = Mapping[str, Mapping[str, float]]  # {task: {metric: value}}
Directions = Mapping[str, Mapping[str, str]]  # {task: {metric: "max" or "min"}}

MEAN_RELATIVE_GAIN = "mean_relative_gain"  # the value of trainer.monitor that takes all tasks into account
LAST_MEAN = "last_mean"  # the rule of the legacy protocol, in the record


@dataclass
class SelectionRule(ABC):
    """Base of the rules that decide, from the evaluations of some tasks, which model state and metrics are kept.

    Args:
        tasks: the tasks that are judged together.
        number: the evaluation whose model state is kept, counted from 1; 0 before the first.
        metrics: the metrics that are reported for these tasks, {task: {metric: value}}.
    """

    tasks: Sequence[str]
    number: int = field(default=0, kw_only=True)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        """Take an evaluation into account; return True if the present model state is to be kept."""

    def out_of_patience(self, number: int) -> bool:
        """Return True if these tasks need no more training after evaluation `number`."""
        return False

    @abstractmethod
    def state_dict(self) -> dict[str, object]:
        """Return the state: dictionaries, lists, numbers and texts."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    @abstractmethod
    def summary(self) -> dict[str, object]:
        """Return the rule, and the epoch and step of the kept state, for the record; after the first evaluation."""


def relative_gain(candidate: float, reference: float, direction: str) -> float:
    """Return the signed relative change from `reference` to `candidate`; positive is better.

    From exactly zero, any change counts as one. A value that is not finite is worse than any that is.
    """
    if not isfinite(candidate) or not isfinite(reference):
        return float(isfinite(candidate)) - float(isfinite(reference))
    sign = 1.0 if direction == "max" else -1.0
    if reference == 0:
        return sign * ((candidate > 0) - (candidate < 0))
    return sign * (candidate - reference) / abs(reference)


@dataclass
class Selection(SelectionRule):
    """The best evaluation so far.

    An evaluation replaces the selected one if it is better: by the mean over the tasks of the relative change of their
    main metric (`mean_relative_gain`), or by one metric (`<task>/<metric>`). The comparison is with the selected
    evaluation itself, so no external scale or reference is needed.

    Args:
        tasks: the tasks that are judged together.
        monitor: `mean_relative_gain` or `<task>/<metric>`.
        directions: whether each metric is to be maximized or minimized.
        main_metrics: the metric of each task that enters `mean_relative_gain`.
        patience: stop after this many evaluations without a better one; None for never.
        min_delta: relative gain that an evaluation must exceed to be better.
        epoch, step: of the selected evaluation.
    """

    monitor: str
    directions: Directions
    main_metrics: Mapping[str, str]
    patience: int | None = None
    min_delta: float = 0.0
    epoch: int = 0
    step: int = 0

    def monitored(self) -> list[tuple[str, str]]:
        """Return the (task, metric) pairs that are compared."""
        if self.monitor == MEAN_RELATIVE_GAIN:
            return [(task, self.main_metrics[task]) for task in self.tasks]
        task, metric = self.monitor.split("/")
        return [(task, metric)]

    def relative_gain(self, metrics: Metrics) -> float:
        """Return the mean relative gain of `metrics` over the selected evaluation."""
        gains = [
            relative_gain(metrics[task][metric], self.metrics[task][metric], self.directions[task][metric])
            for task, metric in self.monitored()
        ]
        return sum(gains) / len(gains)

    def out_of_patience(self, number: int) -> bool:
        return self.patience is not None and number - self.number >= self.patience

    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        # The number is the same if a run was killed after this evaluation was saved as the best one.
        better = self.number in (0, number) or self.relative_gain(metrics) > self.min_delta
        if better:
            self.number, self.epoch, self.step = number, epoch, step
            self.metrics = {task: dict(metrics[task]) for task in self.tasks}
        return better

    def state_dict(self) -> dict[str, object]:
        return {"number": self.number, "epoch": self.epoch, "step": self.step, "metrics": self.metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def summary(self) -> dict[str, object]:
        return {"tasks": list(self.tasks), "rule": self.monitor, "epoch": self.epoch, "step": self.step}


@dataclass
class Evaluation:
    """One evaluation; `number` counts them from 1."""

    number: int
    epoch: int
    step: int
    metrics: dict[str, dict[str, float]]


@dataclass
class LastMean(SelectionRule):
    """The mean of each metric over the last evaluations: the legacy protocol, which selects none of them.

    Source: MTAN and the papers after it print the mean over the last 10 epochs on the test split. The model state of
    the last evaluation is kept. Patience never runs out: the test split must not decide when training ends.

    Args:
        tasks: all tasks.
        averaged_evaluations: number of evaluations in the mean; all of them if there were fewer.
        evaluations: the last ones so far, at most `averaged_evaluations`.

    Raises:
        ValueError: averaged_evaluations is not >= 1.
    """

    averaged_evaluations: int
    evaluations: list[Evaluation] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.averaged_evaluations < 1:
            raise ValueError(f"averaged_evaluations must be >= 1, found {self.averaged_evaluations}")

    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        # A run that was killed, or lost its last checkpoint, repeats evaluations that are in the list already.
        earlier = [evaluation for evaluation in self.evaluations if evaluation.number < number]
        latest = Evaluation(number, epoch, step, {task: dict(metrics[task]) for task in self.tasks})
        self._average([*earlier, latest][-self.averaged_evaluations :])
        return True

    def _average(self, evaluations: list[Evaluation]) -> None:
        """Set the means; a metric that is NaN in one evaluation has the mean NaN."""
        self.evaluations = evaluations
        self.number = evaluations[-1].number
        all_metrics = [evaluation.metrics for evaluation in evaluations]
        self.metrics = {
            task: {
                metric: sum(metrics[task][metric] for metrics in all_metrics) / len(all_metrics) for metric in values
            }
            for task, values in all_metrics[-1].items()
        }

    def state_dict(self) -> dict[str, object]:
        return {"evaluations": [asdict(evaluation) for evaluation in self.evaluations]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._average([Evaluation(**evaluation) for evaluation in state["evaluations"]])

    def summary(self) -> dict[str, object]:
        first, last = self.evaluations[0], self.evaluations[-1]
        return {
            "tasks": list(self.tasks),
            "rule": LAST_MEAN,
            "evaluations": len(self.evaluations),
            "first_epoch": first.epoch,
            "epoch": last.epoch,
            "step": last.step,
        }


class SelectedModel:
    """The model state that the selection rules keep; with several rules, each keeps the state of its tasks' networks.

    Args:
        model: the one that is trained.
        rules: one for all tasks, or one for each if they are trained independently.
    """

    def __init__(self, model: MultiTaskModel, rules: Sequence[SelectionRule]) -> None:
        self._model, self.rules = model, rules
        self._model_states: list[dict[str, Tensor]] = [{} for _ in rules]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of the kept state, {task: {metric: value}}."""
        return {task: values for rule in self.rules for task, values in rule.metrics.items()}

    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        """Take an evaluation into account; return True if the present model state, or a part of it, is now kept."""
        improved = False
        for index, rule in enumerate(self.rules):
            # Once its patience has run out, a rule is final, even while training goes on for other tasks.
            if not rule.out_of_patience(number - 1) and rule.update(number, epoch, step, metrics):
                self._model_states[index] = self._copy_state(rule.tasks)
                improved = True
        return improved

    def out_of_patience(self, number: int) -> bool:
        """Return True if patience has run out for all tasks."""
        return all(rule.out_of_patience(number) for rule in self.rules)

    def load(self) -> None:
        """Load the kept state into the model."""
        self._model.load_state_dict(merge_states(self._model_states))

    def _copy_state(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the state of the model, or of these tasks' networks if they are independent."""
        state = self._model.state_dict()
        if self._model.independent_tasks:
            prefixes = tuple(f"{prefix}." for prefix in self._model.state_prefixes(tasks))
            state = {key: value for key, value in state.items() if key.startswith(prefixes)}
        return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the content of best.pt."""
        return {"selections": [rule.state_dict() for rule in self.rules], "model_states": self._model_states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._model_states = state["model_states"]
        for rule, rule_state in zip(self.rules, state["selections"], strict=True):
            rule.load_state_dict(rule_state)


def merge_states(model_states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the state of the whole model from the `model_states` of best.pt."""
    return {key: value for state in model_states for key, value in state.items()}


def check_monitor(monitor: str, directions: Directions) -> None:
    """Raise ConfigError unless `monitor` is `mean_relative_gain` or names a metric of a task."""
    allowed = [MEAN_RELATIVE_GAIN, *(f"{task}/{metric}" for task, metrics in directions.items() for metric in metrics)]
    if monitor not in allowed:
        raise ConfigError(f"trainer.monitor must be one of {', '.join(allowed)}, found {monitor!r}")
