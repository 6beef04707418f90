"""Metrics that are not defined on the labels of a split: which, why, and what to do, before the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlrun.datasets import Loader, MultiTaskDataset
from mtlrun.datasets.base import SplitName
from mtlrun.errors import ConfigError
from mtlrun.tasks import ConstantPredictor, Task
from mtlrun.training.skill import Skills

#: {task: {metric: why it is not defined}}.
Reasons = dict[str, dict[str, str]]
#: {split: {task: targets of its samples}}.
SplitTargets = Mapping[SplitName, Mapping[str, Tensor]]

_WITHOUT_LABELS = {"train": "nothing is learned for it", "val": "it has no part in the selection"}


@dataclass(frozen=True)
class Undefined:
    """What the labels of val and test do not define.

    Args:
        dataset, tasks: of the run.
        loaders: {split: loader}, of val and test; under the legacy protocol of test alone.
        reasons: {split: {task: {metric: why}}}, of the samples that the run uses.
    """

    dataset: MultiTaskDataset
    tasks: Mapping[str, Task]
    loaders: Mapping[SplitName, Loader]
    reasons: Mapping[SplitName, Reasons]

    def check_monitor(self, monitor: str) -> None:
        """Raise ConfigError if `monitor` is a metric that is not defined on validation."""
        task, _, metric = monitor.partition("/")
        why = self.reasons.get("val", {}).get(task, {}).get(metric)
        if why is not None:
            ways = [f"use trainer.monitor={task}/{name}" for name in self._others(task)]
            raise ConfigError(
                f"trainer.monitor={monitor}: {metric} is not defined on the val split, since {why}; "
                + " or ".join([*ways[:1], *self.advise("val", task)])
            )

    def describe(self, labeled: Mapping[SplitName, Mapping[str, int]]) -> list[str]:
        """Return a line on each split and task that lacks labels, or labels for some metrics.

        Args:
            labeled: {split: {task: number of labeled samples that the run uses}}.
        """
        lines = []
        for split, counts in labeled.items():
            for task in (task for task, count in counts.items() if count == 0):
                ways = self.advise(split, task)
                if len(self.tasks) > 1:
                    ways.append(f"leave out the task: ~tasks.{task}")
                consequence = _WITHOUT_LABELS.get(split, "it has no result")
                lines.append(f"the {split} split has no label of task {task}, so {consequence}; {' or '.join(ways)}")
        for split, reasons in self.reasons.items():
            alike: dict[str, list[str]] = {}
            for task, found in reasons.items():
                for why in dict.fromkeys(found.values()):
                    metrics = [metric for metric in found if found[metric] == why]
                    alike.setdefault(self._describe(split, task, metrics, why), []).append(task)
            for line, tasks in alike.items():
                lines.append(f"{split} split, task{'s' * (len(tasks) > 1)} {', '.join(tasks)}: {line}")
        return lines + self._describe_narrowed()

    def _describe(self, split: SplitName, task: str, metrics: Sequence[str], why: str) -> str:
        main = self.tasks[task].main_metric
        be = "is" if len(metrics) == 1 else "are"
        line = f"{_list(metrics)} {be} not defined, since {why}"
        ways = self.advise(split, task)
        if split == "test":
            line += f", so the result is without {'it' if len(metrics) == 1 else 'them'}"
        elif main in metrics:
            line += f", so checkpoints are compared by the loss instead of {main}"
            if len(self.tasks) == 1:  # with several, the others would no longer count
                ways += [f"compare by {name}: trainer.monitor={task}/{name}" for name in self._others(task)[:1]]
        return f"{line}; {' or '.join(ways)}"

    def _describe_narrowed(self) -> list[str]:
        """Return a line on each mean over labels from which some are left out."""
        lines = []
        for split, loader in self.loaders.items():
            for task, kind in self.tasks.items():
                if type(kind).narrowed_metrics is not Task.narrowed_metrics:
                    target = _labeled(kind, _targets(loader, used=True), task)
                    found = kind.narrowed_metrics(target, self.dataset.classes.get(task, ())) if len(target) else {}
                    for labels in dict.fromkeys(found.values()):
                        metrics = _list([metric for metric in found if found[metric] == labels])
                        lines.append(
                            f"{split} split, task {task}: the mean of {metrics} is without {labels}, not defined there"
                        )
        return lines

    def _others(self, task: str) -> list[str]:
        """Return the metrics of a task that validation defines, the loss last."""
        names = [name for name in self.tasks[task].directions() if name != "loss"]
        return [*(name for name in names if name not in self.reasons["val"].get(task, {})), "loss"]

    def advise(self, split: SplitName, task: str) -> list[str]:
        """Return what gives a split the labels that a task needs: an override that was tried, or else what to do."""
        if split not in self.loaders:
            return ["divide the data differently"]
        now = {name: _targets(loader, used=False) for name, loader in self.loaders.items()}
        lacking = _count_lacking(self.dataset, self.tasks, now)
        of_task = {task: self.tasks[task]}
        if not _count_lacking(self.dataset, of_task, {split: now[split]}):
            return ["use the whole split: trainer.limit_batches=null"]
        tried = 0
        for override, targets in self.dataset.redivide(task):
            tried += 1
            evaluated = {name: targets[name] for name in self.loaders}
            if not _count_lacking(self.dataset, of_task, targets) and (
                _count_lacking(self.dataset, self.tasks, evaluated) < lacking
            ):
                return [f"divide the data differently: {override}"]
        if tried:
            return [f"add samples with the labels that it lacks: none of {tried} other divisions helps"]
        return ["add samples with the labels that it lacks"]


def find_undefined(dataset: MultiTaskDataset, tasks: Mapping[str, Task], loaders: Mapping[str, Loader]) -> Undefined:
    """Return what the labels of val and test do not define; nothing of splits whose targets are not in memory."""
    names: Sequence[SplitName] = ("val", "test") if dataset.protocol == "standard" else ("test",)
    evaluated = {name: loaders[name] for name in names if loaders[name].split.targets is not None}
    reasons = {name: _reasons(dataset, tasks, _targets(loader, used=True)) for name, loader in evaluated.items()}
    return Undefined(dataset, tasks, evaluated, {name: found for name, found in reasons.items() if found})


@torch.no_grad()
def stand_in(skills: Skills, undefined: Undefined, train: Loader) -> None:
    """Let the loss stand in for the metrics that validation does not define.

    Its skill is relative to the constant prediction made of the labels of training: where all labels of a split are the
    same, a constant that knows them is nearly perfect, and no model would come close to it. `Skills.find_undefined`
    replaces a reference that the first evaluation is worse than.
    """
    for task, found in undefined.reasons.get("val", {}).items():
        skills.undefined[task] = list(found)
        kind = undefined.tasks[task]
        if isinstance(kind, ConstantPredictor) and train.split.targets is not None:
            sums = kind.target_sums(_labeled(kind, train.split.targets, task))
            target = _labeled(kind, _targets(undefined.loaders["val"], used=True), task)
            skills.references.setdefault(task, {})["loss"] = float(
                kind.loss(kind.constant_prediction(sums, target), target)
            )


def _list(metrics: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(metrics[:-1]), metrics[-1]]))


def _targets(loader: Loader, *, used: bool) -> Mapping[str, Tensor]:
    """Return the targets of all samples of a split, or of those that the run uses."""
    assert loader.split.targets is not None
    indices = loader.used() if used else None
    if indices is None:
        return loader.split.targets
    return {task: target[indices] for task, target in loader.split.targets.items()}


def _labeled(kind: Task, targets: Mapping[str, Tensor], task: str) -> Tensor:
    return targets[task][kind.labeled(targets[task])]


def _reasons(dataset: MultiTaskDataset, tasks: Mapping[str, Task], targets: Mapping[str, Tensor]) -> Reasons:
    """Return why metrics of each task are not defined; nothing for a task without a label, which has none at all."""
    reasons = {}
    for task, kind in tasks.items():
        if type(kind).undefined_metrics is Task.undefined_metrics:
            continue  # large maps are not copied for nothing
        target = _labeled(kind, targets, task)
        found = kind.undefined_metrics(target, dataset.classes.get(task, ())) if len(target) else {}
        known = {metric: why for metric, why in found.items() if metric in kind.directions()}
        if known:
            reasons[task] = known
    return reasons


def _count_lacking(dataset: MultiTaskDataset, tasks: Mapping[str, Task], splits: SplitTargets) -> int:
    """Return how many tasks have no label in a split, and how many metrics are not defined in val or test."""
    unlabeled = sum(
        not kind.labeled(targets[task]).any() for targets in splits.values() for task, kind in tasks.items()
    )
    evaluated = [targets for name, targets in splits.items() if name != "train"]
    return unlabeled + sum(len(found) for targets in evaluated for found in _reasons(dataset, tasks, targets).values())
