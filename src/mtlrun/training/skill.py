"""Skill: how far a metric is from what a constant prediction gets on the split to its perfect value."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite, nan
from typing import Any

Metrics = Mapping[str, Mapping[str, float]]  # {task: {metric: value}}
Directions = Mapping[str, Mapping[str, str]]  # {task: {metric: "max" or "min"}}

logger = logging.getLogger(__name__)

_PERFECT = {"max": 1.0, "min": 0.0}


@dataclass
class Skills:
    """Skill scores of the metrics of validation: 0 is a constant prediction, 1 a perfect one, below 0 is worse.

    The skill of a value is (value - reference) / (perfect - reference). For an error, whose perfect value is 0, that is
    1 - error / reference. The reference of a metric is what a constant prediction gets, or if there is none, the first
    finite value. It is fixed once, so that skills of all evaluations can be compared, and has the unit of the metric,
    so that skills have none. Where reference and perfect value are equal, the skill is the difference.

    Args:
        directions: whether each metric is to be maximized or minimized.
        perfect: perfect values, where they are not 1 for a metric to be maximized, 0 for one to be minimized.
        trivial: {split: {task: {metric: value}}} of constant predictions, for the tasks that have one.
        references: {task: {metric: value}}.
        undefined: {task: metrics} that are not defined on validation, so that the loss stands in for them.
    """

    directions: Directions
    perfect: Metrics = field(default_factory=dict)
    trivial: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    undefined: dict[str, list[str]] = field(default_factory=dict)

    def compared(self, task: str, metric: str) -> str:
        """Return what evaluations are compared by where `metric` is asked for: itself, or the loss in its place."""
        return "loss" if metric in self.undefined.get(task, ()) else metric

    def find_undefined(self, metrics: Metrics, asked: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Let the loss stand in for the metrics that the first evaluation does not define, and return these.

        Those that a constant prediction has are defined on the split, and stay. The skill of a loss that stands in is
        relative to the first evaluation, or to the reference that was given for it, if that is larger: in a mean with
        other skills, a loss far above its reference would outweigh them.

        Args:
            metrics: of the first evaluation.
            asked: the (task, metric) pairs by which evaluations are to be compared.
        """
        constants = self.trivial.get("val", {})
        found = [
            (task, metric)
            for task, metric in dict.fromkeys(asked)
            if self.compared(task, metric) != "loss"
            and not isfinite(metrics[task][metric])
            and not isfinite(constants.get(task, {}).get(metric, nan))
            and isfinite(metrics[task]["loss"])
        ]
        for task, loss in ((task, metrics[task]["loss"]) for task in self.undefined):
            self.references[task]["loss"] = max(self.references[task].get("loss", loss), loss)
        for task, metric in found:
            if task not in self.undefined:
                self.references[task]["loss"] = metrics[task]["loss"]
            self.undefined.setdefault(task, []).append(metric)
        return found

    def fix_references(self, metrics: Metrics) -> None:
        """Fix the references that are still missing, before the skills of an evaluation are asked for.

        A constant prediction for which a metric to be maximized is not defined, as a correlation is not, counts as 0.

        Args:
            metrics: of the evaluation.
        """
        trivial = self.trivial.get("val", {})
        for task, values in metrics.items():
            references = self.references.setdefault(task, {})
            for metric, value in values.items():
                constant = trivial.get(task, {}).get(metric)
                if constant is not None and not isfinite(constant):
                    constant = 0.0 if self.directions[task][metric] == "max" else None
                reference = value if constant is None else constant
                if isfinite(reference):
                    references.setdefault(metric, reference)

    def has_constant(self, task: str, metric: str) -> bool:
        """Return True if the reference is that of a constant prediction, not that of the first evaluation."""
        return metric in self.trivial.get("val", {}).get(task, {})

    def perfect_value(self, task: str, metric: str) -> float:
        """Return the value of a perfect prediction."""
        return self.perfect.get(task, {}).get(metric, _PERFECT[self.directions[task][metric]])

    def skill(self, task: str, metric: str, value: float) -> Fraction | None:
        """Return the skill of a value, None if it is not finite.

        It is exact, so that no difference between two values is lost by rounding.
        """
        if not isfinite(value):
            return None
        reference = Fraction(self.references[task][metric])
        # Its sign is that of the direction, also if the reference is beyond the value that was declared perfect.
        scale = abs(Fraction(self.perfect_value(task, metric)) - reference) or Fraction(1)
        sign = 1 if self.directions[task][metric] == "max" else -1
        return sign * (Fraction(value) - reference) / scale

    def mean(self, metrics: Metrics, chosen: Iterable[tuple[str, str]]) -> tuple[int, Fraction]:
        """Return the mean skill of the chosen (task, metric) pairs of an evaluation, as a value that can be compared.

        Returns:
            Minus the number of pairs whose value is not finite, and the mean over the others, 0 if there are none.
        """
        skills = [self.skill(task, metric, metrics[task][metric]) for task, metric in chosen]
        finite = [skill for skill in skills if skill is not None]
        return len(finite) - len(skills), sum(finite, Fraction(0)) / max(len(finite), 1)

    def state_dict(self) -> dict[str, object]:
        """Return the state: dictionaries and numbers."""
        return {"trivial": self.trivial, "references": self.references, "undefined": self.undefined}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.trivial, self.references, self.undefined = state["trivial"], state["references"], state["undefined"]


def log_stand_ins(found: Iterable[tuple[str, str]]) -> None:
    """Warn of the metrics that the loss stands in for from the first evaluation on."""
    for task, metric in found:
        logger.warning(
            "task %s: %s is not finite in the first evaluation of validation; the loss of the task is compared in its "
            "place, in all evaluations",
            task,
            metric,
        )


def log_references(skills: Skills, main_metrics: Mapping[str, str]) -> None:
    """Log which main metrics have another reference than a constant prediction, or one that is perfect already.

    Those that the loss stands in for are left out.
    """
    main_metrics = {task: metric for task, metric in main_metrics.items() if skills.compared(task, metric) == metric}
    relative = [task for task, metric in main_metrics.items() if not skills.has_constant(task, metric)]
    if relative:
        logger.info(
            "no constant prediction is defined for %s; the skill is relative to the first evaluation",
            ", ".join(f"{task} {main_metrics[task]}" for task in relative),
        )
    for task, metric in main_metrics.items():
        perfect = skills.perfect_value(task, metric)
        if skills.directions[task][metric] == "max" and skills.references[task].get(metric, perfect) > perfect:
            logger.warning(
                "%s %s is above %g, the value that counts as perfect, so that its changes count for little or much; "
                "declare perfect_values in the class of the task",
                task,
                metric,
                perfect,
            )
        if skills.references[task].get(metric) == perfect:
            how = "a constant prediction" if skills.has_constant(task, metric) else "the first evaluation"
            logger.info("%s has a perfect %s %s on validation; the skill is the difference from it", how, task, metric)
