"""Batches on the device, in which each task has the targets of the labeled samples only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mtlrun.datasets.batches.copying import send
from mtlrun.datasets.batches.parts import Part
from mtlrun.errors import ConfigError
from mtlrun.tasks.base import MeasuresPerformance, Task
from mtlrun.tasks.losses.sample_weights import num_weighted_terms, sample_weighted_loss
from mtlrun.weightings.transfer import numbers_on, sent

_Weights = Tensor | Mapping[str, Tensor]
#: (inputs, {task: targets}); the samples' weights where they have some, for all tasks or {task: weights}; and which
#: samples they are, if that says which are labeled.
Samples = (
    tuple[Any, Mapping[str, Tensor]]
    | tuple[Any, Mapping[str, Tensor], _Weights]
    | tuple[Any, Mapping[str, Tensor], _Weights, Part]
)


@dataclass(frozen=True)
class SourceBatch:
    """Samples that go through the model together, with the targets of the labeled ones only.

    Args:
        tasks: {name: task}, in the order of the weighting's K tasks.
        inputs: [num_samples, ...].
        targets: for each task those of the labeled samples.
        label_index: for each task which samples are labeled, as positions in the batch; None for all.
        label_positions: the same on the CPU, so that the batch can be divided without waiting for the device.
        sample_weights: {task: weights of its labeled samples}; those of other tasks are 1.
        source: the source that all samples come from; None where samples of all sources go through the model together.
    """

    tasks: Mapping[str, Task]
    inputs: Tensor
    targets: Mapping[str, Tensor]
    label_index: Mapping[str, Tensor | None]
    label_positions: Mapping[str, Tensor | None]
    sample_weights: Mapping[str, Tensor] = field(default_factory=dict)
    source: str | None = None

    @classmethod
    def load(
        cls, tasks: Mapping[str, Task], loaded: Samples, device: torch.device, source: str | None
    ) -> "SourceBatch":
        """Bring samples to `device`; see `LabeledBatch.load`."""
        inputs, all_targets, *rest = loaded
        all_weights: Any = rest[0] if rest else {}
        part: Any = rest[1] if len(rest) > 1 else None
        targets: dict[str, Tensor] = {}
        label_index: dict[str, Tensor | None] = {}
        label_positions: dict[str, Tensor | None] = {}
        sample_weights: dict[str, Tensor] = {}
        for name, task in tasks.items():
            if source is not None and name not in all_targets:  # a task of other sources
                targets[name] = torch.empty(0, device=device)
                label_index[name] = torch.empty(0, dtype=torch.int64, device=device)
                label_positions[name] = torch.empty(0, dtype=torch.int64)
                continue
            target = all_targets[name]
            weights = all_weights if isinstance(all_weights, Tensor) else all_weights.get(name)
            if part is not None and name in part.positions:
                positions, labeled = part.positions[name], part.labeled[name]
            else:
                labeled = _find_labeled(task, target, weights)
                positions = None if labeled is None else labeled.cpu()
            if labeled is not None:
                target = target[labeled]
                weights = None if weights is None else weights[labeled]
            label_positions[name] = positions
            label_index[name] = None if labeled is None else send(labeled, device)
            targets[name] = send(target, device)
            if weights is not None:
                sample_weights[name] = send(weights, device)
        inputs = send(inputs, device)
        return cls(tasks, inputs, targets, label_index, label_positions, sample_weights, source)

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def active(self) -> list[str]:
        """The tasks that have a label among the samples."""
        return [name for name in self.tasks if self.targets[name].shape[0]]

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

    def num_terms(self, name: str) -> int | Tensor:
        """Return the number of terms that a task's loss averages; a tensor [] where it depends on the targets."""
        task, target = self.tasks[name], self.targets[name]
        if name not in self.sample_weights:
            return task.num_terms(target)
        return num_weighted_terms(task, target, self.sample_weights[name])

    def task_fractions(self) -> Tensor:
        """Return [num_samples, K]: each sample's equal fractions, adding up to 1, of the tasks that it has a label of.

        A sample without any label belongs to all tasks.
        """
        present = torch.zeros(len(self), len(self.tasks), device=self.inputs.device)
        for column, index in zip(present.T, self.label_index.values(), strict=True):
            if index is None:
                column.fill_(1)
            else:
                column.index_fill_(0, index, 1)  # `column[index] = 1` copies the number to a GPU, and waits
        present.masked_fill_(present.sum(dim=1, keepdim=True) == 0, 1)
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
        return self.select(range(min(start, len(self)), len(self), step))

    def select(self, samples: range) -> "SourceBatch":
        """Return the samples at these positions; which of them are labeled is found out on the CPU."""
        device, chosen = self.inputs.device, slice(samples.start, samples.stop, samples.step)
        targets: dict[str, Tensor] = {}
        label_index: dict[str, Tensor | None] = {}
        label_positions: dict[str, Tensor | None] = {}
        sample_weights: dict[str, Tensor] = {}
        for name, positions in self.label_positions.items():
            kept: slice | Tensor = chosen
            label_index[name] = label_positions[name] = None
            if positions is not None:
                places = positions - samples.start
                mask = (places >= 0) & (positions < samples.stop) & (places % samples.step == 0)
                label_positions[name] = found = places[mask] // samples.step
                label_index[name] = sent(found, device)
                kept = sent(mask.nonzero().squeeze(1), device)
            targets[name] = self.targets[name][kept]
            if name in self.sample_weights:
                sample_weights[name] = self.sample_weights[name][kept]
        inputs = self.inputs[chosen]
        return SourceBatch(self.tasks, inputs, targets, label_index, label_positions, sample_weights, self.source)


def _find_labeled(task: Task, target: Tensor, weights: Tensor | None) -> Tensor | None:
    """Return the positions of the labeled samples, None for all; samples of weight 0 are treated as unlabeled."""
    mask = task.labeled(target) if weights is None else task.labeled(target) & (weights > 0)
    return None if mask.all() else mask.nonzero().squeeze(1)


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

    @cached_property
    def active(self) -> list[str]:
        """The tasks that have a label in the batch."""
        if len(self.source_batches) == 1:
            return self.source_batches[0].active
        return [name for name in self.tasks if any(name in part.active for part in self.source_batches)]

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of all tensors until what `stream` was given to do by now is done."""
        for part in self.source_batches:
            for tensors in ({"": part.inputs}, part.targets, part.label_index, part.sample_weights):
                for tensor in tensors.values():
                    if tensor is not None:
                        tensor.record_stream(stream)

    @property
    def num_samples(self) -> int:
        """Number of samples in the batch."""
        return sum(len(part) for part in self.source_batches)

    def split(self, count: int) -> Iterator["LabeledBatch"]:
        """Yield `count` micro-batches of (nearly) equal size; fewer if there are fewer samples."""
        count = min(count, max(len(part) for part in self.source_batches))
        ranges = [_ranges(len(part), count) for part in self.source_batches]
        for samples in zip(*ranges, strict=True):
            parts = [part.select(each) for part, each in zip(self.source_batches, samples, strict=True) if each]
            if parts:
                yield LabeledBatch(self.tasks, parts)

    def num_terms(self) -> Tensor:
        """Return the number of terms that each active task's loss averages, [len(active)], in float64."""
        device = self.source_batches[0].inputs.device
        terms = [[part.num_terms(name) for part in self.source_batches if name in part.active] for name in self.active]
        return numbers_on(device, [each[0] if len(each) == 1 else numbers_on(device, each).sum() for each in terms])


def _ranges(size: int, count: int) -> list[range]:
    """Return `count` ranges of (nearly) equal length, the longer ones first, that `size` positions consist of."""
    length, longer = divmod(size, count)
    starts = [number * length + min(number, longer) for number in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]
