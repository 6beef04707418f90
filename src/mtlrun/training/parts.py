"""Parts: the components of a run. `mtlrun.setup.prepare` builds and checks them, `Trainer` trains with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from mtlrun.config.settings import Runtime, Settings
from mtlrun.datasets import Loader, MultiTaskDataset
from mtlrun.models import MultiTaskModel
from mtlrun.records.record import Match, SplitSummary
from mtlrun.records.stamps import Stamp
from mtlrun.tasks import Task
from mtlrun.training.optim import Schedule
from mtlrun.training.selection import SelectionRule
from mtlrun.training.skill import Skills
from mtlrun.weightings import Weighting


@dataclass(frozen=True)
class Parts:
    """The components of a run, which fit together, on the device.

    Args:
        dataset: where the splits of the loaders come from.
        tasks: {name: task}, in the order of the weighting's K tasks.
        task_sizes: {task: {key: number}}: the sizes of tasks that the config leaves out and the dataset gave.
        model: before the first step.
        weighting: after `setup`.
        optimizer: over all parameters of the model, with `name` and `initial_lr` in each group.
        schedule: the factor on the optimizer's learning rates.
        loaders: {"train", "val", "test"}, and "meta", the training split in another order, for methods that look ahead.
        selection_rules: one for each set of tasks that is selected separately.
        skills: the scale on which metrics of validation are compared.
        settings: the group `trainer`, with what was chosen for the number of training samples.
        chosen: {key: number} of these choices.
        runtime: the group `runtime`.
        device: where to compute.
        macs: multiply-accumulate operations of one sample's predictions for all tasks.
        match: the backbone width that `match_parameters` led to; None without it.
        splits: what the run sees of each split.
        notes: sentences on the data that its user would want to know.
        learned: what the dataset learned from the data, and the tasks, under `tasks`.
        data: the stamps of the files and folders that the run reads, {path: stamp}.
    """

    dataset: MultiTaskDataset
    tasks: Mapping[str, Task]
    task_sizes: Mapping[str, Mapping[str, int]]
    model: MultiTaskModel
    weighting: Weighting
    optimizer: Optimizer
    schedule: Schedule
    loaders: Mapping[str, Loader]
    selection_rules: Sequence[SelectionRule]
    skills: Skills
    settings: Settings
    chosen: Mapping[str, int]
    runtime: Runtime
    device: torch.device
    macs: int
    match: Match | None
    splits: Mapping[str, SplitSummary]
    notes: Sequence[str]
    learned: Mapping[str, Any]
    data: Mapping[str, Stamp]

    @property
    def steps_per_epoch(self) -> int:
        """The number of training batches."""
        return self.loaders["train"].num_batches

    @property
    def total_steps(self) -> int:
        """The planned length of the training; fewer steps are made if patience runs out."""
        return self.settings.steps or (self.settings.epochs or 0) * self.steps_per_epoch

    def close(self) -> None:
        """End the processes that load samples."""
        for loader in self.loaders.values():
            loader.close()
