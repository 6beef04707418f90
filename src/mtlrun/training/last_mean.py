"""The literature's protocol: the result is the mean over the last evaluations of the test split, none is selected."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mtlrun.config.settings import Settings
from mtlrun.training.selection import MEAN_RELATIVE_GAIN, Metrics

RULE = "last_mean"  # what the record calls it


@dataclass
class Evaluation:
    """One evaluation; `number` counts them from 1."""

    number: int
    epoch: int
    step: int
    metrics: dict[str, dict[str, float]]


@dataclass
class LastMean:
    """The mean of each metric over the last evaluations, of which none is preferred: a `Choice` without a choice.

    Source: MTAN and the papers after it print the mean over the last 10 epochs on the test split. The weights that
    are kept are those of the last evaluation.

    Args:
        tasks: all tasks.
        averaged_evaluations: how many evaluations the mean is over; over all where there were fewer.
        evaluations: the last ones so far, at most `averaged_evaluations`.

    Raises:
        ValueError: averaged_evaluations is not >= 1.
    """

    tasks: Sequence[str]
    averaged_evaluations: int
    evaluations: list[Evaluation] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.averaged_evaluations < 1:
            raise ValueError(f"averaged_evaluations must be >= 1, found {self.averaged_evaluations}")

    @property
    def number(self) -> int:
        """The number of the last evaluation, 0 if there was none."""
        return self.evaluations[-1].number if self.evaluations else 0

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The means, {task: {metric: value}}; empty before the first evaluation. What is NaN once stays NaN."""
        if not self.evaluations:
            return {}
        all_metrics = [evaluation.metrics for evaluation in self.evaluations]
        return {
            task: {
                metric: sum(metrics[task][metric] for metrics in all_metrics) / len(all_metrics) for metric in values
            }
            for task, values in all_metrics[-1].items()
        }

    def exhausted(self, number: int) -> bool:
        """Say no: the test split may not decide when training ends."""
        return False

    def offer(self, number: int, epoch: int, step: int, metrics: Metrics) -> bool:
        """Take this evaluation into the mean; the weights are always to be kept."""
        # A run that was killed, or lost its last checkpoint, makes evaluations again that stand here already.
        before = [evaluation for evaluation in self.evaluations if evaluation.number < number]
        taken = Evaluation(number, epoch, step, {task: dict(metrics[task]) for task in self.tasks})
        self.evaluations = [*before, taken][-self.averaged_evaluations :]
        return True

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint needs to hold."""
        return {"evaluations": [asdict(evaluation) for evaluation in self.evaluations]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.evaluations = [Evaluation(**evaluation) for evaluation in state["evaluations"]]

    def summary(self) -> dict[str, object]:
        """Return what the mean is over, for the record; epoch and step are the last evaluation's."""
        first, last = self.evaluations[0], self.evaluations[-1]
        return {
            "tasks": list(self.tasks),
            "rule": RULE,
            "evaluations": len(self.evaluations),
            "first_epoch": first.epoch,
            "epoch": last.epoch,
            "step": last.step,
        }


def check_unselected(averaged_evaluations: int | None, settings: Settings) -> list[str]:
    """Return the settings that would choose by the test split, or have no effect, as problems.

    Args:
        averaged_evaluations: of the dataset; with None there are no problems.
        settings: the group `trainer`.
    """
    if averaged_evaluations is None:
        return []
    because = "dataset.protocol=legacy evaluates the test split on the way"
    problems = []
    if averaged_evaluations < 1:
        problems.append(f"dataset: averaged_evaluations must be >= 1 or None, found {averaged_evaluations}")
    if settings.patience is not None:
        problems.append(
            f"trainer.patience={settings.patience}: {because}, which may not decide when training ends; use "
            "trainer.patience=null or dataset.protocol=standard"
        )
    if settings.monitor != MEAN_RELATIVE_GAIN:
        problems.append(
            f"trainer.monitor={settings.monitor}: {because} and selects nothing by it, the result is a mean over the "
            f"last evaluations; leave trainer.monitor={MEAN_RELATIVE_GAIN} or use dataset.protocol=standard"
        )
    if settings.min_delta != 0:
        problems.append(
            f"trainer.min_delta={settings.min_delta} has no effect with dataset.protocol=legacy, which selects "
            "nothing; leave trainer.min_delta=0 or use dataset.protocol=standard"
        )
    return problems
