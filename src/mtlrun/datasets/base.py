"""Datasets and their splits: samples `(input, {task: target})`, and what is known of them without loading inputs."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mtlrun.config.settings import Protocol
from mtlrun.datasets.batches.copying import send
from mtlrun.datasets.batches.sampling import Sampling
from mtlrun.datasets.input_columns import InputColumn
from mtlrun.datasets.split_names import SPLITS as SPLITS
from mtlrun.datasets.split_names import SplitName as SplitName
from mtlrun.datasets.tables.inputs.keys import Keys, keys_of

Sample = tuple[Any, dict[str, Any]]

#: How much samples count in the losses, float32 [num_samples], >= 0: the same for all tasks, or {task: weights}; a task
#: without an entry counts all samples alike.
SampleWeights = Tensor | Mapping[str, Tensor]

#: Where samples are kept between two accesses: in `memory`; on the `device` that is trained on, where batches are then
#: made; in their files, `none`; `auto` is `device` on a GPU that has room for them, else `memory`.
Cache = Literal["auto", "memory", "device", "none"]
#: How images are normalized: `none` for [0, 1], `centered` for [-1, 1], `imagenet` as pretrained networks expect.
Normalization = Literal["none", "centered", "imagenet"]
#: For datasets that are read, drawn or rendered as a whole.
TensorCache = Literal["auto", "memory", "device"]
#: For datasets whose samples are assembled one by one.
FileCache = Literal["memory", "none"]


class MultiTaskDataset(ABC):
    """A dataset with labels for several tasks on the same inputs.

    A subclass is built from its config alone and may raise DataError if its files are missing or malformed.
    """

    #: Shape of one input without the batch dimension, e.g. (1, 28, 28).
    input_shape: tuple[int, ...]
    #: What the numbers of an input mean, one by one, if inputs are vectors; None if they are no vectors, or vectors of
    #: numbers about which no more is known. Networks that embed categories need it.
    columns: Sequence[InputColumn] | None = None
    #: The tasks that the dataset has labels for. A config may train a subset of them.
    task_names: tuple[str, ...]
    #: {task: number of its classes, levels or labels}, where the dataset knows it: the config may then leave it out.
    task_sizes: Mapping[str, int] = {}
    #: {task: names of its classes, levels or labels, in the order of their numbers}, where the dataset knows them.
    classes: Mapping[str, Sequence[str]] = {}
    #: True if it reads `tasks.<t>.positive`, the label of a binary task that is 1.
    chooses_positive = False
    #: How training batches are drawn from several sources; None to shuffle all samples together.
    sampling: Sampling | None = None
    #: True if the shape of inputs differs between sources: each source then goes through the model separately.
    #: `input_shape` is that of the source with dense tasks, since their heads are built for one size.
    inputs_differ = False
    #: How the result is computed. With `legacy`, `split("val")` must be the test split, since that is what is evaluated
    #: during training, and all results are called test-selected. Meant for reproducing published results only.
    protocol: Protocol = "standard"
    #: With `legacy`: the result is the mean over this many of the last evaluations, 10 in MTAN and the papers after it.
    averaged_evaluations: int = 10
    #: The files and folders that the samples come from, or patterns such as `photos/**/*.png`; None for those that the
    #: config of the dataset names. Their stamps are in the record, so that a later change is noticed. A folder that
    #: holds other things as well needs a pattern.
    data_paths: Sequence[str | Path] | None = None
    #: Where samples are kept. With `device` every split is a BatchSplit, which is moved there before the run.
    cache: Cache = "auto"
    #: How inputs are normalized; None if they are no images, or nothing is known about it.
    normalization: Normalization | None = None
    #: The mean and the standard deviation by which images in [0, 1] are normalized, where that is none of these kinds.
    pixel_statistics: tuple[float, float] | None = None
    #: What was done to the data that their user would want to know: each a line of the log, and kept in the record.
    notes: Sequence[str] = ()

    @abstractmethod
    def split(self, name: SplitName) -> "Dataset[Any]":
        """Return a `Split`, or any map-style dataset of `(input, {task: target})`, which is wrapped in one.

        A missing label has the value that its task reserves for it (-1 for a class, NaN for a number). The content of a
        split must not depend on the run's seed.
        """

    def groups(self, name: SplitName) -> Tensor | None:
        """Return the group of each sample of a split, int64 [num_samples]; None if samples are independent.

        Samples of one group, such as those of a patient, say less than as many others: intervals draw whole groups.
        """
        return None

    def learned(self) -> Mapping[str, Any]:
        """Return what was learned from the data, as plain data for `learned.json` of the run.

        What encodes further samples as the splits were, and decodes predictions: classes, categories, scales.
        """
        return {}

    def redivide(self, task: str) -> Iterator[tuple[str, Mapping[SplitName, Mapping[str, Tensor]]]]:
        """Yield overrides that divide the samples differently, and the targets of each split under them.

        They are advised, best first, where a split lacks labels of a task that others have.
        """
        return iter(())


class Split(Dataset[Sample], ABC):
    """A map-style dataset of `(input, {task: target})`, and what is known of its samples without loading inputs."""

    #: {task: tensor of all samples' targets}, for all tasks. If given, targets are checked before the run, labels are
    #: counted, and classes are weighted without loading the inputs.
    targets: Mapping[str, Tensor] | None = None
    #: For each sample its name in the original data, made of plain numbers, texts and lists: a row, a file, a pair of
    #: these. They are saved with the run, as `splits.json`. None if the position in the split says it all, as for
    #: samples that are generated.
    sample_ids: Sequence[Any] | None = None
    #: {source: indices of its samples, int64}, if each sample belongs to one of several sources.
    sources: Mapping[str, Tensor] | None = None
    #: How much each sample counts in the losses; only for the training split.
    sample_weights: SampleWeights | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample."""


class DerivedSplit(Split):
    """The samples of another dataset, with all that is known of them; base of splits that change samples on access.

    Args:
        samples: a split, or a map-style dataset that may have some of a split's attributes.
    """

    def __init__(self, samples: "Dataset[Any]") -> None:
        self._samples = samples
        targets = getattr(samples, "targets", None)
        self.targets = targets if isinstance(targets, Mapping) else None  # those of torchvision are lists
        self.sample_ids = getattr(samples, "sample_ids", None)
        self.sources = getattr(samples, "sources", None)
        self.sample_weights = getattr(samples, "sample_weights", None)

    def __len__(self) -> int:
        return len(self._samples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self._samples[index]
        return sample


def as_split(samples: "Dataset[Any]") -> Split:
    """Return a dataset as a split: itself if it is one."""
    return samples if isinstance(samples, Split) else DerivedSplit(samples)


class BatchSplit(Split):
    """A split in memory that makes batches as a whole, on the device on which its tensors lie."""

    #: True if samples are changed at random at each access.
    is_random = False
    #: True if batches are the same, bit for bit, on whatever device they are made. A subclass with another `batch` says
    #: so anew; only then `cache=auto` moves it to a GPU.
    same_everywhere = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "batch" in cls.__dict__:
            cls.same_everywhere = cls.__dict__.get("same_everywhere", False)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where batches are made."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """How many bytes `to` takes on a device."""

    @abstractmethod
    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        """Return the samples at these indices, stacked; without waiting for a GPU if the indices are there."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the same split with its tensors on `device`, where its batches are then made.

        `targets` stay on the CPU, where labels are checked and counted. A split on a GPU must stay in the process that
        made it, so it cannot be given to worker processes.
        """


def lies_on_gpu(split: Split) -> bool:
    """Return True if a split makes its batches on another device than the CPU."""
    return isinstance(split, BatchSplit) and split.device.type != "cpu"


class TensorSplit(BatchSplit):
    """A split in memory, as tensors: a batch is one indexing operation.

    Args:
        inputs: [num_samples, ...].
        targets: {task: [num_samples, ...]}.
        sample_ids, sources, sample_weights: see `Split`.
    """

    targets: Mapping[str, Tensor]
    same_everywhere = True
    #: False if `inputs` are only the positions of what the inputs are made of.
    holds_inputs = True

    def __init__(
        self,
        inputs: Tensor,
        targets: Mapping[str, Tensor],
        sample_ids: Sequence[Any] | None = None,
        sources: Mapping[str, Tensor] | None = None,
        sample_weights: SampleWeights | None = None,
    ) -> None:
        for task, target in targets.items():
            if len(target) != len(inputs):
                raise ValueError(f"task {task} has {len(target)} targets for {len(inputs)} inputs")
        if sample_ids is not None and len(sample_ids) != len(inputs):
            raise ValueError(f"there are {len(sample_ids)} sample_ids for {len(inputs)} inputs")
        self.inputs = inputs
        self.targets = dict(targets)
        #: The targets that batches are made of, where the inputs are.
        self._targets: Mapping[str, Tensor] = self.targets
        self.sample_ids = None if sample_ids is None else list(sample_ids)
        self.sources = None if sources is None else dict(sources)
        self.sample_weights = sample_weights

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return self.inputs[index], {task: target[index] for task, target in self.targets.items()}

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.inputs, *self.targets.values()))

    def batch(self, indices: Sequence[int] | Tensor) -> Sample:
        places = send(torch.as_tensor(indices), self.device)
        return self.inputs.index_select(0, places), {
            task: target.index_select(0, places) for task, target in self._targets.items()
        }

    def keys(self) -> Keys | None:
        """Return a number for each sample, the same for the same inputs, uint64 [n]; None if inputs are no vectors.

        Images are left out, since to go through them takes longer than a run should take to start.
        """
        return keys_of(self.inputs) if self.inputs.dim() == 2 else None

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        moved.inputs = self.inputs.to(device)
        moved._targets = {task: target.to(device) for task, target in self.targets.items()}
        return moved
