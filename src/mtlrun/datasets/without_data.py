"""Problems without data, whose tasks are functions of the parameters."""

from collections.abc import Sequence

import torch

from mtlrun.config.bounds import Generated, Width, checked
from mtlrun.datasets.base import MultiTaskDataset, SplitName, TensorSplit


class NoData(MultiTaskDataset):
    """A constant sample, repeated, so that a problem without data can be trained like any other.

    It is meant for the backbone `mtlrun.models.backbones.point.Point`, whose output is its parameter x whatever the
    input, for the head `torch.nn.Identity`, and for tasks of the kind `mtlrun.tasks.Objective`.

    Args:
        size: number of coordinates of x.
        tasks: names of the tasks.
        num_train: repetitions of the sample in an epoch: with trainer.batch_size=1, the number of steps.
    """

    @checked
    def __init__(
        self, size: Width = 2, tasks: Sequence[str] = ("first", "second"), num_train: Generated = 1000
    ) -> None:
        self.input_shape = (size,)
        self.task_names = tuple(tasks)
        self._num_train = num_train

    def split(self, name: SplitName) -> TensorSplit:
        count = self._num_train if name == "train" else 1
        targets = {task: torch.zeros(count) for task in self.task_names}
        return TensorSplit(torch.zeros(1, *self.input_shape).expand(count, -1), targets)
