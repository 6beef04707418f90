"""What the heads put out for the samples of a split, with the targets: what predictions and intervals are made of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlrun.datasets import Loader
from mtlrun.datasets.batches.copying import begin_copy
from mtlrun.tasks import Task
from mtlrun.training.batch import SourceBatch


@dataclass(frozen=True)
class TaskOutputs:
    """The head's output for the samples of a split that a task can be asked about, on the CPU.

    Args:
        indices: of the samples in their split, rising, int64 [n].
        predictions: as the head gives them, [n, output_size].
        labeled: which samples carry the task's label, [n].
        targets: those of the labeled samples.
    """

    indices: Tensor
    predictions: Tensor
    labeled: Tensor
    targets: Tensor

    @property
    def labeled_predictions(self) -> Tensor:
        """The head's output for the labeled samples."""
        return self.predictions[self.labeled]


class SplitOutputs:
    """The outputs of some tasks' heads for a split, gathered batch by batch.

    Dense tasks and detection are left out: what they put out is as large as the images. A sample without a label has an
    output, too, unless none of the samples of its source is labeled for the task: that task is one of other sources.

    Args:
        tasks: {name: task}.
        loader: of the split.
    """

    def __init__(self, tasks: Mapping[str, Task], loader: Loader) -> None:
        self.tasks = {name: task for name, task in tasks.items() if not (task.dense or task.boxes)}
        self.num_samples = loader.num_samples
        self._sources = loader.sources
        targets = loader.split.targets
        #: {source: its tasks}; None if that cannot be known before the samples are loaded.
        self._tasks_of: Mapping[str, Collection[str]] | None = None
        if targets is not None:
            self._tasks_of = {
                source: [name for name, task in self.tasks.items() if task.labeled(targets[name][indices]).any()]
                for source, indices in self._sources.items()
            }
        self._parts: dict[str, list[TaskOutputs]] = {name: [] for name in self.tasks}

    def of_interest(self, source: str | None) -> Collection[str]:
        """Return the tasks whose outputs are wanted for all samples of a source, of None for samples of any source."""
        if source is None:
            return self.tasks
        return () if self._tasks_of is None else self._tasks_of[source]

    def add(self, indices: Tensor, samples: SourceBatch, predictions: Mapping[str, Tensor]) -> None:
        """Add a batch of samples; on a GPU, `wait_for_copies` completes what was added.

        Args:
            indices: of the samples in their split.
            samples: of the tasks, and maybe of others.
            predictions: of the tasks in `of_interest` and those with a label.
        """
        for name in self.tasks:
            if name not in samples.tasks or name not in predictions:
                continue
            positions = samples.label_positions[name]
            labeled = torch.ones(len(samples), dtype=torch.bool)
            if positions is not None:
                labeled = torch.zeros_like(labeled).index_fill_(0, positions, True)
            predicted, targets = begin_copy(predictions[name]), begin_copy(samples.targets[name])
            outputs = TaskOutputs(indices, predicted, labeled, targets)
            self._parts[name].append(outputs)

    def put(self, name: str, outputs: TaskOutputs) -> None:
        """Set the outputs for a task, which were not gathered here."""
        self._parts[name] = [outputs]

    def take(self, names: Sequence[str], other: "SplitOutputs") -> None:
        """Take the outputs for some tasks from others of the same split, in place of those that are here."""
        for name in names:
            if name in self.tasks:
                self._parts[name] = other._parts[name]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return those of some tasks that outputs are gathered for, and that have none."""
        return [name for name in names if name in self.tasks and not self._parts[name]]

    def of_task(self, name: str) -> TaskOutputs | None:
        """Return the outputs for a task; None if there are none."""
        parts = self._parts[name]
        if not parts:
            return None
        with_labels = [part.targets for part in parts if len(part.targets)] or [parts[0].targets]
        found = TaskOutputs(
            torch.cat([part.indices for part in parts]),
            torch.cat([part.predictions for part in parts]),
            torch.cat([part.labeled for part in parts]),
            torch.cat(with_labels),
        )
        return self._in_order(found)

    def _in_order(self, found: TaskOutputs) -> TaskOutputs:
        """Return the outputs in the order of the split, of the samples whose sources have labels."""
        place = torch.empty(len(found.labeled), dtype=torch.int64)
        place[found.labeled] = torch.arange(len(found.targets))
        order = found.indices.argsort()
        if self._sources:
            source_of = torch.full((self.num_samples,), -1)
            for number, indices in enumerate(self._sources.values()):
                source_of[indices] = number
            sources = source_of[found.indices]
            order = order[torch.isin(sources[order], sources[found.labeled].unique())]
        labeled = found.labeled[order]
        targets = found.targets[place[order[labeled]]]
        return TaskOutputs(found.indices[order], found.predictions[order], labeled, targets)
