"""Selection: which model state is kept, which metrics are reported, and when training stops early."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import nan
from typing import Any

from torch import Tensor

from mtlrun.datasets.batches.copying import copies_on_cpu
from mtlrun.errors import CheckpointError
from mtlrun.models import MultiTaskModel
from mtlrun.training.skill import Metrics, Skills

# Values of trainer.monitor that take all tasks into account: one model state for all, or one for each.
MEAN_SKILL, PER_TASK = "mean_skill", "per_task"
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


@dataclass
class Selection(SelectionRule):
    """The best evaluation so far.

    Each evaluation has one score: the mean skill of what is monitored; where scores are equal, that of the losses. It
    depends on the evaluation alone, so the best one does not depend on their order. An evaluation in which fewer values
    are defined is worse. Where it is known that a metric is not defined on the split (`Skills.undefined`), the loss of
    its task is compared in its place; one that happens to be undefined in every evaluation does not decide.

    Args:
        tasks: the tasks that are judged together.
        monitor: `mean_skill` or `per_task`, which stand for the main metrics of the tasks, or `<task>/<metric>`.
        main_metrics: {task: metric}.
        skills: the scale on which metrics are compared.
        patience: stop after this many evaluations without a better one; None for never.
        min_delta: how much the mean skill must increase for an evaluation to be better. If it is not 0, the order of
            the evaluations matters, and equal scores are equal whatever the losses.
        epoch, step: of the selected evaluation.
    """

    monitor: str
    main_metrics: Mapping[str, str]
    skills: Skills
    patience: int | None = None
    min_delta: float = 0.0
    epoch: int = 0
    step: int = 0

    def monitored(self) -> list[tuple[str, str]]:
        """Return the (task, metric) pairs that are compared; the loss stands in for metrics that are not defined."""
        return [(task, self.skills.compared(task, metric)) for task, metric in self.asked_for()]

    def asked_for(self) -> list[tuple[str, str]]:
        """Return the (task, metric) pairs that `monitor` stands for."""
        if self.monitor in (MEAN_SKILL, PER_TASK):
            return [(task, self.main_metrics[task]) for task in self.tasks]
        task, metric = self.monitor.split("/")
        return [(task, metric)]

    def skill(self) -> float:
        """Return the mean skill of what is monitored, of the selected evaluation; NaN if no value is finite."""
        undefined, skill = self.skills.mean(self.metrics, self.monitored())
        return float(skill) if len(self.monitored()) + undefined else nan

    def out_of_patience(self, number: int) -> bool:
        return self.patience is not None and number - self.number >= self.patience

    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        better = not self.number or self._is_better(metrics)
        if better:
            self.number, self.epoch, self.step = number, epoch, step
            self.metrics = {task: dict(metrics[task]) for task in self.tasks}
        return better

    def _is_better(self, metrics: Metrics) -> bool:
        monitored = self.monitored()
        defined, skill = self.skills.mean(metrics, monitored)
        selected = self.skills.mean(self.metrics, monitored)
        if self.min_delta or (defined, skill) != selected:
            return (defined, skill - Fraction(self.min_delta)) > selected
        losses = [(task, "loss") for task, _ in monitored]
        return self.skills.mean(metrics, losses) > self.skills.mean(self.metrics, losses)

    def state_dict(self) -> dict[str, object]:
        return {"number": self.number, "epoch": self.epoch, "step": self.step, "metrics": self.metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.number, self.epoch, self.step = state["number"], state["epoch"], state["step"]
        self.metrics = state["metrics"]

    def summary(self) -> dict[str, object]:
        place = {"epoch": self.epoch, "step": self.step}
        summary = {"tasks": list(self.tasks), "rule": self.monitor, **place, "skill": self.skill()}
        pairs = zip(self.asked_for(), self.monitored(), strict=True)
        stand_ins = {"/".join(asked): "/".join(compared) for asked, compared in pairs if asked != compared}
        return summary | ({"stand_ins": stand_ins} if stand_ins else {})


class TaskBests:
    """The best evaluation for each task alone, whatever is selected: where they differ, the tasks compete.

    Args:
        main_metrics: {task: metric}.
        skills: the scale on which metrics are compared.
    """

    def __init__(self, main_metrics: Mapping[str, str], skills: Skills) -> None:
        self._best = {task: Selection([task], PER_TASK, main_metrics, skills) for task in main_metrics}

    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> None:
        """Take an evaluation into account."""
        for best in self._best.values():
            best.update(number, epoch, step, metrics)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return {task: {epoch, step, skill}}, nothing before the first evaluation; a skill is NaN if never defined."""
        return {
            task: {"epoch": best.epoch, "step": best.step, "skill": best.skill()}
            for task, best in self._best.items()
            if best.number
        }

    def state_dict(self) -> dict[str, object]:
        """Return the state: dictionaries, numbers and texts."""
        return {task: best.state_dict() for task, best in self._best.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for task, best in self._best.items():
            best.load_state_dict(state[task])


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
        latest = Evaluation(number, epoch, step, {task: dict(metrics[task]) for task in self.tasks})
        self._average([*self.evaluations, latest][-self.averaged_evaluations :])
        return True

    def _average(self, evaluations: list[Evaluation]) -> None:
        """Set the means; a metric that is NaN in one evaluation has the mean NaN."""
        self.evaluations, self.number, self.metrics = evaluations, 0, {}
        if not evaluations:
            return
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
    """The model states that the selection rules keep: of the whole model, or of their tasks' networks if independent.

    Args:
        model: the one that is trained.
        rules: one for all tasks, or one for each.
    """

    def __init__(self, model: MultiTaskModel, rules: Sequence[SelectionRule]) -> None:
        self._model, self.rules = model, rules
        self._model_states: list[dict[str, Tensor]] = [{} for _ in rules]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of each task in the state that is kept for it, {task: {metric: value}}."""
        return {task: values for rule in self.rules for task, values in rule.metrics.items()}

    def update(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        """Take an evaluation into account; return True if the present model state, or a part of it, is now kept."""
        improved = []
        for index, rule in enumerate(self.rules):
            # Once its patience has run out, a rule is final, even while training goes on for other tasks.
            if not rule.out_of_patience(number - 1) and rule.update(number, epoch, step, metrics):
                improved.append(index)
        if improved:
            # One copy for all rules, which also takes the space of one in best.pt.
            state = copies_on_cpu(self._model.state_dict())
            for index in improved:
                self._model_states[index] = self._part(state, self.rules[index].tasks)
        return bool(improved)

    def out_of_patience(self, number: int) -> bool:
        """Return True if patience has run out for all tasks."""
        return all(rule.out_of_patience(number) for rule in self.rules)

    def load_in_turn(self) -> Iterator[list[str]]:
        """Load one kept state after the other into the model; yield the tasks that each is kept for."""
        if self._model.independent_tasks:
            self._model.load_state_dict(merge_states(self._model_states))
            yield [task for rule in self.rules for task in rule.tasks]
            return
        for number in dict.fromkeys(rule.number for rule in self.rules):
            of_number = [index for index, rule in enumerate(self.rules) if rule.number == number]
            self._model.load_state_dict(self._model_states[of_number[0]])
            yield [task for index in of_number for task in self.rules[index].tasks]

    def _part(self, state: dict[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        """Return the state of the model, or of these tasks' networks if they are independent."""
        if not self._model.independent_tasks:
            return state
        prefixes = tuple(f"{prefix}." for prefix in self._model.state_prefixes(tasks))
        return {key: value for key, value in state.items() if key.startswith(prefixes)}

    def weights(self) -> dict[str, Any]:
        """Return the content of best.pt: the model states, and the number of the evaluation that each is of."""
        return {"evaluations": [rule.number for rule in self.rules], "model_states": self._model_states}

    def state_dict(self) -> dict[str, Any]:
        """Return the state: what is selected, and the weights."""
        return {"rules": [rule.state_dict() for rule in self.rules], "model_states": self._model_states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for rule, rule_state, _ in zip(self.rules, state["rules"], state["model_states"], strict=True):
            rule.load_state_dict(rule_state)
        self._model_states = state["model_states"]


def merge_states(model_states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the state of the whole model from the `model_states` of best.pt.

    Raises:
        CheckpointError: they are several states of the whole model, one for each task.
    """
    merged = {key: value for state in model_states for key, value in state.items()}
    if len(merged) < sum(map(len, model_states)):
        raise CheckpointError(
            f"there is no single best model: trainer.monitor={PER_TASK} kept {len(model_states)}, one for each task; "
            f"use trainer.monitor={MEAN_SKILL}"
        )
    return merged
