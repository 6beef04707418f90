"""Batches on the device, in which each task has the targets of the labeled samples only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.tasks.base import MeasuresPerformance, Task
from mtlrun.tasks.losses.sample_weights import num_weighted_terms, sample_weighted_loss

#: (inputs, {task: targets}), and the samples' weights where they have some: for all tasks, or {task: weights}.
Samples = tuple[Any, Mapping[str, Tensor]] | tuple[Any, Mapping[str, Tensor], Tensor | Mapping[str, Tensor]]


@dataclass(frozen=True)
class SourceBatch:
    """Samples that go through the model together, with the targets of the labeled ones only.

    Args:
        tasks: {name: task}, in the order of the weighting's K tasks.
        inputs: [num_samples, ...].
        targets: for each task those of the labeled samples.
        label_index: for each task which samples are labeled, as positions in the batch; None for all.
        sample_weights: {task: weights of its labeled samples}; those of other tasks are 1.
        source: the source that all samples come from; None where samples of all sources go through the model together.
    """

    tasks: Mapping[str, Task]
    inputs: Tensor
    targets: Mapping[str, Tensor]
    label_index: Mapping[str, Tensor | None]
    sample_weights: Mapping[str, Tensor] = field(default_factory=dict)
    source: str | None = None

    @classmethod
    def load(
        cls, tasks: Mapping[str, Task], loaded: Samples, device: torch.device, source: str | None
    ) -> "SourceBatch":
        """Bring samples to `device`; see `LabeledBatch.load`."""
        non_blocking = device.type == "cuda"  # a copy to the CPU must be waited for
        inputs, all_targets, *rest = loaded
        all_weights = rest[0] if rest else {}
        targets: dict[str, Tensor] = {}
        label_index: dict[str, Tensor | None] = {}
        sample_weights: dict[str, Tensor] = {}
        for name, task in tasks.items():
            if source is not None and name not in all_targets:  # a task of other sources
                targets[name] = torch.empty(0, device=device)
                label_index[name] = torch.empty(0, dtype=torch.int64, device=device)
                continue
            target = all_targets[name]
            weights = all_weights if isinstance(all_weights, Tensor) else all_weights.get(name)
            mask = task.labeled(target)
            if weights is not None:
                mask = mask & (weights > 0)  # samples of weight 0 are treated as unlabeled
            label_index[name] = None
            if not mask.all():
                labeled = mask.nonzero().squeeze(1)
                target = target[labeled]
                weights = None if weights is None else weights[labeled]
                label_index[name] = labeled.to(device, non_blocking=non_blocking)
            targets[name] = target.to(device, non_blocking=non_blocking)
            if weights is not None:
                sample_weights[name] = weights.to(device, non_blocking=non_blocking)
        inputs = inputs.to(device, non_blocking=non_blocking)
        return cls(tasks, inputs, targets, label_index, sample_weights, source)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def active(self) -> list[str]:
        """The tasks that have a label among the samples."""
        return [name for name in self.tasks if len(self.targets[name])]

    def pick(self, name: str, prediction: Tensor) -> Tensor:
        """Return the predictions of the samples that carry this task's label."""
        index = self.label_index[name]
        return prediction if index is None else prediction[index]

    def losses(self, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean loss over the labeled samples, for each task that has both a label and a prediction."""
        return {
            name: self._loss(name, self.pick(name, predictions[name])) for name in self.active if name in predictions
        }

    def _loss(self, name: str, prediction: Tensor) -> Tensor:
        if name not in self.sample_weights:
            return self.tasks[name].loss(prediction, self.targets[name])
        return sample_weighted_loss(self.tasks[name], prediction, self.targets[name], self.sample_weights[name])

    def num_terms(self, name: str) -> Tensor:
        """Return the number of terms that a task's loss averages, [], in float64."""
        task, target = self.tasks[name], self.targets[name]
        if name not in self.sample_weights:
            terms: int | Tensor = task.num_terms(target)
        else:
            terms = num_weighted_terms(task, target, self.sample_weights[name])
        return torch.as_tensor(terms, device=self.inputs.device).double()

    def task_fractions(self) -> Tensor:
        """Return [num_samples, K]: each sample's equal fractions, adding up to 1, of the tasks that it has a label of.

        A sample without any label belongs to all tasks.
        """
        present = torch.zeros(len(self), len(self.tasks), device=self.inputs.device)
        for column, index in zip(present.T, self.label_index.values(), strict=True):
            column[slice(None) if index is None else index] = 1
        present[present.sum(dim=1) == 0] = 1
        return present / present.sum(dim=1, keepdim=True)

    def performance(self, name: str, prediction: Tensor) -> Tensor:
        """Return how well a task does on the labeled samples, []; see `MeasuresPerformance`.

        Raises:
            ConfigError: the task has no such number.
        """
        task = self.tasks[name]
        if not isinstance(task, MeasuresPerformance):
            raise ConfigError(f"tasks.{name}: {type(task).__name__} gives no performance to weigh by")
        return task.performance(self.pick(name, prediction.detach()), self.targets[name])

    def every_nth(self, step: int, start: int) -> "SourceBatch":
        """Return every step-th sample from `start` on."""
        return self.select(torch.arange(min(start, len(self)), len(self), step, device=self.inputs.device))

    def select(self, samples: Tensor) -> "SourceBatch":
        """Return the samples at these positions, which are in rising order."""
        targets: dict[str, Tensor] = {}
        label_index: dict[str, Tensor | None] = {}
        sample_weights: dict[str, Tensor] = {}
        for name, index in self.label_index.items():
            if index is None:
                label_index[name], kept = None, samples
            else:
                kept = torch.isin(index, samples)
                label_index[name] = torch.searchsorted(samples, index[kept])
            targets[name] = self.targets[name][kept]
            if name in self.sample_weights:
                sample_weights[name] = self.sample_weights[name][kept]
        return SourceBatch(self.tasks, self.inputs[samples], targets, label_index, sample_weights, self.source)


@dataclass(frozen=True)
class LabeledBatch:
    """A batch on the device: one source batch of all samples, or one per source where sources are kept separate.

    Args:
        tasks: {name: task}, in the order of the weighting's K tasks.
        source_batches: none of them is empty.
    """

    tasks: Mapping[str, Task]
    source_batches: Sequence[SourceBatch]

    @classmethod
    def load(
        cls, tasks: Mapping[str, Task], batch: Samples | Mapping[str, Samples], device: torch.device
    ) -> "LabeledBatch":
        """Bring what the loader gives to `device`: a batch, or {source: batch} where sources are kept separate.

        Which samples are labeled is decided before the copy, so that nothing has to wait for a GPU. In a batch of one
        source the targets may lack the tasks of other sources.
        """
        by_source = batch if isinstance(batch, Mapping) else {None: batch}
        return cls(tasks, [SourceBatch.load(tasks, loaded, device, source) for source, loaded in by_source.items()])

    @property
    def active(self) -> list[str]:
        """The tasks that have a label in the batch."""
        return [name for name in self.tasks if any(len(part.targets[name]) for part in self.source_batches)]

    @property
    def num_samples(self) -> int:
        """Number of samples in the batch."""
        return sum(len(part) for part in self.source_batches)

    def split(self, count: int) -> Iterator["LabeledBatch"]:
        """Yield `count` micro-batches of (nearly) equal size; fewer if there are fewer samples."""
        count = min(count, max(len(part) for part in self.source_batches))
        positions = [
            torch.arange(len(part), device=part.inputs.device).tensor_split(count) for part in self.source_batches
        ]
        for samples in zip(*positions, strict=True):
            parts = [part.select(index) for part, index in zip(self.source_batches, samples, strict=True) if len(index)]
            if parts:
                yield LabeledBatch(self.tasks, parts)

    def num_terms(self) -> Tensor:
        """Return the number of terms that each active task's loss averages, [len(active)], in float64."""
        return torch.stack(
            [
                torch.stack([part.num_terms(name) for part in self.source_batches if name in part.active]).sum()
                for name in self.active
            ]
        )
