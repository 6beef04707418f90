"""What a dataset is: three splits of samples `(inputs, {task: target})`, and the shape of the inputs."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mtlrun.config.settings import Protocol
from mtlrun.datasets.batches.sampling import Sampling

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

Sample = tuple[Any, dict[str, Any]]

#: Where inputs are kept between two uses: `memory`; `device`, the one that is trained on; `none`, in their files.
Cache = Literal["memory", "device", "none"]
#: Of datasets that are read, drawn or rendered as a whole.
TensorCache = Literal["memory", "device"]
#: Of those whose samples are put together one by one.
FileCache = Literal["memory", "none"]


class MultiTaskDataset(ABC):
    """A dataset with labels for several tasks on the same inputs.

    A subclass is built from its config alone and may raise DataError where its files are absent or wrong.
    """

    #: Shape of one input without the batch dimension, e.g. (1, 28, 28).
    input_shape: tuple[int, ...]
    #: The tasks that it has labels for. A config may train a part of them.
    task_names: tuple[str, ...]
    #: How batches are made of several sources; None where there is one, or no wish.
    sampling: Sampling | None = None
    #: True if inputs differ in shape between sources: each then goes through the model on its own. `input_shape` is
    #: that of the source whose tasks predict something at each place, for heads are made for one size.
    inputs_differ = False
    #: How the result is computed. With `legacy`, `split("val")` must be the test split, since that is what is evaluated
    #: during training, and all results are called test-selected. Meant for reproducing published results only.
    protocol: Protocol = "standard"
    #: With `legacy`: the result is the mean over this many of the last evaluations, 10 in MTAN and the papers after it.
    averaged_evaluations: int = 10
    #: Where inputs are kept. With `device` every split is a TensorSplit, which is moved there before the run.
    cache: Cache = "memory"

    @abstractmethod
    def split(self, name: SplitName) -> "Dataset[Any]":
        """Return a map-style split with `__len__` and `__getitem__(index) -> (input, {task: target})`.

        A missing label is what its task calls missing (-1 for a class, NaN for a number). What a split holds may not
        depend on the run's seed. A split may have these attributes, or None in their place:

        - targets: {task: tensor of all samples' targets}, of all tasks. They are checked before the run, and labels are
          counted and classes weighted without loading the inputs.
        - sample_ids: for each sample what it is called in the source, made of plain numbers, texts and lists: a row, a
          file, a pair of these. They are saved with the run, as `splits.json`. Samples that are generated have none,
          for their place in the split says it all.
        - sources: {source: indices of its samples, int64}, where each sample belongs to one of several sources.
        - weights: float32 [num_samples], >= 0, how much each sample counts in the losses; of the training split alone.
        """


class TensorSplit(Dataset[Sample]):
    """A split that lies in memory as tensors, and gives whole batches by one indexing operation.

    Args:
        inputs: [num_samples, ...].
        targets: {task: [num_samples, ...]}.
        sample_ids: [num_samples], what each sample is called in the source: a row, a file, a pair of these.
        sources: {source: indices of its samples}, where each sample belongs to one of several.
    """

    #: How much each sample counts in the losses, [num_samples]; None where all count the same.
    weights: Tensor | None = None

    def __init__(
        self,
        inputs: Tensor,
        targets: Mapping[str, Tensor],
        sample_ids: Sequence[Any] | None = None,
        sources: Mapping[str, Tensor] | None = None,
    ) -> None:
        for task, target in targets.items():
            if len(target) != len(inputs):
                raise ValueError(f"task {task} has {len(target)} targets for {len(inputs)} inputs")
        if sample_ids is not None and len(sample_ids) != len(inputs):
            raise ValueError(f"there are {len(sample_ids)} sample_ids for {len(inputs)} inputs")
        self.inputs = inputs
        self.targets = dict(targets)
        self.sample_ids = None if sample_ids is None else list(sample_ids)
        self.sources = None if sources is None else dict(sources)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return self.inputs[index], {task: target[index] for task, target in self.targets.items()}

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        """Return the samples at `indices`, stacked."""
        chosen = torch.as_tensor(indices)
        # Which samples is decided on the CPU; a GPU is told and not waited for.
        inputs = self.inputs[chosen.to(self.inputs.device, non_blocking=True)]
        return inputs, {task: target[chosen] for task, target in self.targets.items()}

    def to(self, device: torch.device | str) -> Self:
        """Return the same split with its inputs on `device`, where batches of them are then made.

        Targets stay on the CPU: which labels are there is decided there. A split on a GPU must stay in the process that
        made it: it has no use for workers, and none may be given one.
        """
        moved = copy.copy(self)
        moved.inputs = self.inputs.to(device)
        return moved
