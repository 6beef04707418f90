"""A batch on the device: a task is trained and judged on the samples that carry its label, and on no others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.tasks.base import Task
from mtlrun.tasks.losses.sample_weights import num_weighted_terms, weighted_loss

#: (inputs, {task: targets}), and the samples' weights where they have some.
Samples = tuple[Any, Mapping[str, Tensor]] | tuple[Any, Mapping[str, Tensor], Tensor]


@dataclass(frozen=True)
class Stream:
    """Samples that go through the model together, with the targets of the labeled ones only.

    Args:
        tasks: {name: task}, in the order of the weighting's K tasks.
        inputs: [num_samples, ...].
        targets: for each task those of the labeled samples.
        rows: for each task which samples are labeled, as positions in the stream; None stands for all.
        weights: for each task how much each labeled sample counts; None for 1.
        source: the name of the source that all samples come from; None where sources are not kept apart.
    """

    tasks: Mapping[str, Task]
    inputs: Tensor
    targets: Mapping[str, Tensor]
    rows: Mapping[str, Tensor | None]
    weights: Mapping[str, Tensor] | None = None
    source: str | None = None

    @classmethod
    def load(cls, tasks: Mapping[str, Task], loaded: Samples, device: torch.device, source: str | None) -> "Stream":
        """Bring samples to `device`; see `LabeledBatch.load`."""
        non_blocking = device.type == "cuda"  # a copy to the CPU must be waited for
        inputs, all_targets, *rest = loaded
        weights: dict[str, Tensor] = {}
        targets: dict[str, Tensor] = {}
        rows: dict[str, Tensor | None] = {}
        for name, task in tasks.items():
            if source is not None and name not in all_targets:  # a task of other sources
                targets[name] = torch.empty(0, device=device)
                rows[name] = torch.empty(0, dtype=torch.int64, device=device)
                continue
            target = all_targets[name]
            mask = task.labeled(target)
            if rest:
                mask = mask & (rest[0] > 0)  # what counts for nothing is not there
            own_weights = rest[0] if rest else None
            rows[name] = None
            if not mask.all():
                found = mask.nonzero().squeeze(1)
                target = target[found]
                own_weights = None if own_weights is None else own_weights[found]
                rows[name] = found.to(device, non_blocking=non_blocking)
            targets[name] = target.to(device, non_blocking=non_blocking)
            if own_weights is not None:
                weights[name] = own_weights.to(device, non_blocking=non_blocking)
        inputs = inputs.to(device, non_blocking=non_blocking)
        return cls(tasks, inputs, targets, rows, weights if rest else None, source)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def active(self) -> list[str]:
        """The tasks that have a label among the samples."""
        return [name for name in self.tasks if len(self.targets[name])]

    def pick(self, name: str, prediction: Tensor) -> Tensor:
        """Return the predictions of the samples that carry this task's label."""
        rows = self.rows[name]
        return prediction if rows is None else prediction[rows]

    def losses(self, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean loss over the labeled samples, for each task that has both a label and a prediction."""
        return {
            name: self._loss(name, self.pick(name, predictions[name])) for name in self.active if name in predictions
        }

    def _loss(self, name: str, prediction: Tensor) -> Tensor:
        if self.weights is None:
            return self.tasks[name].loss(prediction, self.targets[name])
        return weighted_loss(self.tasks[name], prediction, self.targets[name], self.weights[name])

    def num_terms(self, name: str) -> Tensor:
        """Return over how many terms the loss of a task is a mean, [], in float64."""
        task, target = self.tasks[name], self.targets[name]
        found = task.num_terms(target) if self.weights is None else num_weighted_terms(task, target, self.weights[name])
        return torch.as_tensor(found, device=self.inputs.device).double()

    def shares(self) -> Tensor:
        """Return for each sample its tasks, [num_samples, K]: equal parts, adding up to 1, of those it has a label of.

        A sample without any label belongs to all.
        """
        present = torch.zeros(len(self), len(self.tasks), device=self.inputs.device)
        for column, rows in zip(present.T, self.rows.values(), strict=True):
            column[slice(None) if rows is None else rows] = 1
        present[present.sum(dim=1) == 0] = 1
        return present / present.sum(dim=1, keepdim=True)

    def performance(self, name: str, prediction: Tensor) -> Tensor:
        """Return how well a task does on the labeled samples, []; see `Task.performance`.

        Raises:
            ConfigError: the task has no such number.
        """
        value = self.tasks[name].performance(self.pick(name, prediction.detach()), self.targets[name])
        if value is None:
            raise ConfigError(f"tasks.{name}: {type(self.tasks[name]).__name__} gives no performance to weigh by")
        return value

    def every(self, step: int, start: int) -> "Stream":
        """Return every step-th sample from `start` on."""
        return self.select(torch.arange(start, len(self), step, device=self.inputs.device))

    def select(self, samples: Tensor) -> "Stream":
        """Return the samples at these positions, which are in rising order."""
        targets: dict[str, Tensor] = {}
        rows: dict[str, Tensor | None] = {}
        weights: dict[str, Tensor] = {}
        for name, old in self.rows.items():
            if old is None:
                rows[name], kept = None, samples
            else:
                kept = torch.isin(old, samples)
                rows[name] = torch.searchsorted(samples, old[kept])
            targets[name] = self.targets[name][kept]
            if self.weights is not None:
                weights[name] = self.weights[name][kept]
        own_weights = None if self.weights is None else weights
        return Stream(self.tasks, self.inputs[samples], targets, rows, own_weights, self.source)


@dataclass(frozen=True)
class LabeledBatch:
    """A batch on the device: one stream, or one for each source where these go through the model apart.

    Args:
        tasks: {name: task}, in the order of the weighting's K tasks.
        streams: none of them is empty.
    """

    tasks: Mapping[str, Task]
    streams: Sequence[Stream]

    @classmethod
    def load(
        cls, tasks: Mapping[str, Task], batch: Samples | Mapping[str, Samples], device: torch.device
    ) -> "LabeledBatch":
        """Bring what the loader gives to `device`: a batch, or {source: batch} where sources go apart.

        What is labeled is decided before the copy, so that nothing has to wait for a GPU. In a batch of one source the
        tasks of others may be left out of the targets.
        """
        by_source = batch if isinstance(batch, Mapping) else {None: batch}
        return cls(tasks, [Stream.load(tasks, loaded, device, source) for source, loaded in by_source.items()])

    @property
    def active(self) -> list[str]:
        """The tasks that have a label in the batch."""
        return [name for name in self.tasks if any(len(stream.targets[name]) for stream in self.streams)]

    @property
    def num_samples(self) -> int:
        """How many samples the batch has."""
        return sum(len(stream) for stream in self.streams)

    def pieces(self, count: int) -> Iterator["LabeledBatch"]:
        """Cut the batch into `count` pieces of (nearly) equal size; fewer if there are fewer samples."""
        positions = [
            torch.arange(len(stream), device=stream.inputs.device).tensor_split(count) for stream in self.streams
        ]
        for samples in zip(*positions, strict=True):
            found = [stream.select(mine) for stream, mine in zip(self.streams, samples, strict=True) if len(mine)]
            if found:
                yield LabeledBatch(self.tasks, found)

    def num_terms(self) -> Tensor:
        """Return over how many terms the loss of each active task is a mean, [len(active)], in float64."""
        return torch.stack(
            [
                torch.stack([stream.num_terms(name) for stream in self.streams if name in stream.active]).sum()
                for name in self.active
            ]
        )
