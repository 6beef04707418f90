"""Random images with random labels, of any size and for any number of tasks: what benchmarks train on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlrun.datasets import MultiTaskDataset, TensorSplit


class Noise(MultiTaskDataset):
    """Images of noise, for tasks that are called by their kinds and a number, such as `segmentation3`.

    Args:
        tasks: their names, which begin with classification, segmentation, depth or normals.
        size: height and width of the images.
        num_train: training images. Validation and test have two.
        num_classes: of classification and segmentation.
        cache: see `MultiTaskDataset`.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        size: Sequence[int] = (32, 32),
        num_train: int = 258,
        num_classes: int = 10,
        cache: str = "memory",
    ) -> None:
        self.task_names = tuple(tasks)
        self.input_shape = (3, *size)
        self.task_sizes = dict.fromkeys(tasks, num_classes)
        self.cache = cache  # type: ignore[assignment]
        self._num_train = num_train

    def split(self, name: str) -> TensorSplit:
        generator = torch.Generator().manual_seed(["train", "val", "test"].index(name))
        num_samples = self._num_train if name == "train" else 2
        inputs = torch.randn(num_samples, *self.input_shape, generator=generator)
        return TensorSplit(inputs, {task: self._targets(task, num_samples, generator) for task in self.task_names})

    def _targets(self, task: str, num_samples: int, generator: torch.Generator) -> Tensor:
        height, width = self.input_shape[1:]
        if task.startswith("depth"):
            return 0.5 + 5 * torch.rand(num_samples, height, width, generator=generator)
        if task.startswith("normals"):
            directions = torch.randn(num_samples, 3, height, width, generator=generator)
            return torch.nn.functional.normalize(directions, dim=1)
        shape = (num_samples, height, width) if task.startswith("segmentation") else (num_samples,)
        return torch.randint(self.task_sizes[task], shape, generator=generator)
