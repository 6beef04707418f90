"""Check of labels as they are loaded, for splits that do not hold them in memory."""

import re
from collections.abc import Mapping

from torch import Tensor

from mtlrun.datasets import Loaded, Split
from mtlrun.datasets.base import lies_on_gpu
from mtlrun.errors import DataError
from mtlrun.tasks import Task


class TargetCheck:
    """Checks the labels of each batch while they are on the CPU.

    Where a GPU is the first to meet a class that there is not, it can compute nothing more, and names no sample.

    Args:
        split: the name of the split.
        tasks: of the run.
    """

    def __init__(self, split: str, tasks: Mapping[str, Task]) -> None:
        self._split, self._tasks = split, dict(tasks)

    def __call__(self, batch: Loaded, indices: Mapping[str, Tensor]) -> None:
        """Check a batch, whose samples have these indices in the split, for each source if the batch has several.

        Raises:
            DataError: a label is not valid; it names the sample.
        """
        parts = batch.values() if isinstance(batch, Mapping) else [batch]
        for (_, targets, *_), chosen in zip(parts, indices.values(), strict=True):
            for name, target in targets.items():
                if name not in self._tasks:
                    continue
                try:
                    self._tasks[name].check_targets(target)
                except ValueError as error:
                    problem = _number_in_split(str(error), chosen)
                    raise DataError(f"dataset: {self._split} split, task {name}: {problem}") from error


def _number_in_split(problem: str, indices: Tensor) -> str:
    """Return what is wrong with the samples that a task was given, by their numbers in the split."""
    return re.sub(r"\bsample (\d+)", lambda match: f"sample {int(indices[int(match[1])])}", problem)


def check_of(split: Split, name: str, tasks: Mapping[str, Task]) -> TargetCheck | None:
    """Return the check that batches of a split need; None if all its labels are checked at once.

    They are if it holds its targets, or lies on a GPU.
    """
    return None if split.targets is not None or lies_on_gpu(split) else TargetCheck(name, tasks)
