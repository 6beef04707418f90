"""Missing labels: a task is trained and judged on the samples that carry its label, and on no others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.tasks.base import Task


@dataclass(frozen=True)
class LabelledBatch:
    """A batch on the device, with the targets of the labelled samples only.

    Args:
        tasks: {name: task}, in the order of the weighting's K tasks.
        inputs: [batch, ...].
        targets: for each task those of the labelled samples.
        rows: for each task which samples are labelled, as positions in the batch; None stands for all.
    """

    tasks: Mapping[str, Task]
    inputs: Tensor
    targets: Mapping[str, Tensor]
    rows: Mapping[str, Tensor | None]

    @classmethod
    def load(
        cls, tasks: Mapping[str, Task], batch: tuple[Tensor, Mapping[str, Tensor]], device: torch.device
    ) -> "LabelledBatch":
        """Bring what the loader gives to `device`.

        What is labelled is decided before the copy, so that nothing has to wait for a GPU.
        """
        inputs, all_targets = batch
        targets: dict[str, Tensor] = {}
        rows: dict[str, Tensor | None] = {}
        for name, task in tasks.items():
            target = all_targets[name]
            mask = task.labelled(target)
            rows[name] = None
            if not mask.all():
                found = mask.nonzero().squeeze(1)
                target = target[found]
                rows[name] = found.to(device, non_blocking=True)
            targets[name] = target.to(device, non_blocking=True)
        return cls(tasks, inputs.to(device, non_blocking=True), targets, rows)

    @property
    def active(self) -> list[str]:
        """The tasks that have a label in the batch."""
        return [name for name in self.tasks if len(self.targets[name])]

    def pick(self, name: str, prediction: Tensor) -> Tensor:
        """Return the predictions of the samples that carry this task's label."""
        rows = self.rows[name]
        return prediction if rows is None else prediction[rows]

    def losses(self, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean loss over the labelled samples, for each task that has both a label and a prediction."""
        return {
            name: self.tasks[name].loss(self.pick(name, predictions[name]), self.targets[name])
            for name in self.active
            if name in predictions
        }

    def part(self, start: int, step: int = 1, stop: int | None = None) -> "LabelledBatch":
        """Return the samples that `slice(start, stop, step)` picks, as a batch of their own."""
        everything = range(len(self.inputs))[start:stop:step]
        return self._select(torch.arange(everything.start, everything.stop, step, device=self.inputs.device))

    def pieces(self, count: int) -> Iterator["LabelledBatch"]:
        """Cut the batch into `count` pieces of (nearly) equal size; fewer if there are fewer samples."""
        for samples in torch.arange(len(self.inputs), device=self.inputs.device).tensor_split(count):
            if len(samples):
                yield self._select(samples)

    def _select(self, samples: Tensor) -> "LabelledBatch":
        targets: dict[str, Tensor] = {}
        rows: dict[str, Tensor | None] = {}
        for name, old in self.rows.items():
            if old is None:
                rows[name], targets[name] = None, self.targets[name][samples]
            else:
                kept = torch.isin(old, samples)
                rows[name] = torch.searchsorted(samples, old[kept])
                targets[name] = self.targets[name][kept]
        return LabelledBatch(self.tasks, self.inputs[samples], targets, rows)

    def num_terms(self) -> Tensor:
        """Return over how many terms the loss of each active task is a mean, [len(active)], in float64."""
        return torch.stack(
            [
                torch.as_tensor(self.tasks[name].num_terms(self.targets[name]), device=self.inputs.device).double()
                for name in self.active
            ]
        )

    def shares(self) -> Tensor:
        """Return for each sample its tasks, [batch, K]: equal parts, adding up to 1, of those it carries a label of.

        A sample without any label belongs to all.
        """
        present = torch.zeros(len(self.inputs), len(self.tasks), device=self.inputs.device)
        for column, rows in zip(present.T, self.rows.values(), strict=True):
            column[slice(None) if rows is None else rows] = 1
        present[present.sum(dim=1) == 0] = 1
        return present / present.sum(dim=1, keepdim=True)

    def performances(self, predictions: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        """Return how well each of these tasks does on the batch, [len(names)]; see `Task.performance`.

        Raises:
            ConfigError: a task has no such number.
        """
        found = []
        for name in names:
            value = self.tasks[name].performance(self.pick(name, predictions[name].detach()), self.targets[name])
            if value is None:
                raise ConfigError(f"tasks.{name}: {type(self.tasks[name]).__name__} gives no performance to weigh by")
            found.append(value)
        return torch.stack(found)
