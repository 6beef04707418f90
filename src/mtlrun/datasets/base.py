"""What a data set is: three splits of samples `(inputs, {task: target})`, and the shape of the inputs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

Sample = tuple[Any, dict[str, Any]]


class MultiTaskDataset(ABC):
    """A data set with labels for several tasks on the same inputs.

    A subclass is built from its config alone and may raise DataError where its files are absent or wrong.
    """

    #: Shape of one input without the batch dimension, e.g. (1, 28, 28).
    input_shape: tuple[int, ...]
    #: The tasks that it has labels for. A config may train a part of them.
    task_names: tuple[str, ...]

    @abstractmethod
    def split(self, name: SplitName) -> "Dataset[Any]":
        """Return a map-style split with `__len__` and `__getitem__(index) -> (input, {task: target})`.

        A missing label is what its task calls missing (-1 for a class, NaN for a number). What a split holds may not
        depend on the run's seed.
        """


class TensorSplit(Dataset[Sample]):
    """A split that lies in memory as tensors, and gives whole batches by one indexing operation.

    Args:
        inputs: [num_samples, ...].
        targets: {task: [num_samples, ...]}.
        identifiers: what each sample is called in the source: a row, a file, a pair of these; saved with the run.
    """

    def __init__(self, inputs: Tensor, targets: Mapping[str, Tensor], identifiers: Sequence[Any] | None = None) -> None:
        for task, target in targets.items():
            if len(target) != len(inputs):
                raise ValueError(f"task {task} has {len(target)} targets for {len(inputs)} inputs")
        self.inputs = inputs
        self.targets = dict(targets)
        self.identifiers = None if identifiers is None else list(identifiers)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return self.inputs[index], {task: target[index] for task, target in self.targets.items()}

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        """Return the samples at `indices`, stacked."""
        chosen = torch.as_tensor(indices)
        return self.inputs[chosen], {task: target[chosen] for task, target in self.targets.items()}
